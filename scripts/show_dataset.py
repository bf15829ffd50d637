"""A contact sheet of any data set: photo, position map, mesh, landmarks, and what is seen.

python scripts/show_dataset.py --dataset synthetic --count 24 sheet.png
python scripts/show_dataset.py --dataset 300w_lp --subsets AFW --data-dir data sheet.png
python scripts/show_dataset.py --dataset aflw2000 --data-dir DIR --face embedded sheet.png
"""

import argparse
from pathlib import Path

from prnet.datasets.fits import find_300w_lp, find_aflw2000
from prnet.datasets.synthetic import RenderedFaces, SyntheticRule
from prnet.drawing.contact_sheet import archive_samples, write_sheet
from prnet.entry import shipped_dataset
from prnet.faces.loading import FACES, load_face


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the picture to write")
    parser.add_argument(
        "--dataset", choices=("synthetic", "300w_lp", "aflw2000"), default="synthetic"
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--subsets", nargs="+", help="sub-folders of 300W_LP; all by default")
    parser.add_argument(
        "--face", choices=FACES, help="embedded for synthetic, else bfm, by default"
    )
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic world")
    parser.add_argument("--size", type=int, default=256, help="px, of the synthetic pictures")
    options = parser.parse_args()

    synthetic = options.dataset == "synthetic"
    face = load_face(
        options.face or ("embedded" if synthetic else "bfm"),
        bfm_dir=options.data_dir / "BFM",
        prnet_uv_dir=options.data_dir / "PRNet_uv",
    )
    if synthetic:
        rule = SyntheticRule.from_values(shipped_dataset("synthetic") | {"size": options.size})
        faces = RenderedFaces(rule, seed=options.seed)
        indices = range(options.count)
        seen = faces.faces.batch(indices).attention.cpu()
        write_sheet(options.output, faces.__getitems__(indices), face, attention=seen)
        return
    if options.dataset == "300w_lp":
        pairs = find_300w_lp(options.data_dir, options.subsets)
    else:
        pairs = find_aflw2000(options.data_dir)
    write_sheet(options.output, archive_samples(pairs, face, count=options.count), face)


if __name__ == "__main__":
    main()
