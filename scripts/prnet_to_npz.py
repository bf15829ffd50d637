"""PRNet's weights as an npz, for `python -m prnet.import_weights`; run it where TensorFlow is.

python prnet_to_npz.py Data/net-data/256_256_resfcn256_weight prnet.npz
"""

import sys

import numpy as np
import tensorflow as tf

reader = tf.train.load_checkpoint(sys.argv[1])
names = [name for name in reader.get_variable_to_shape_map() if "/Adam" not in name]
np.savez(sys.argv[2], **{name: reader.get_tensor(name) for name in names})
