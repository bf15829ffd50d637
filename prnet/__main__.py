"""`prnet VERB ...` and `python -m prnet VERB ...`: the same as `python -m prnet.VERB ...`."""

import runpy
import sys

VERBS = {
    "reconstruct": "photos in, faces out",
    "swap": "the face of one photo in another",
    "demo": "the same as a page in the browser",
    "train": "train a network",
    "eval": "score a network, or anybody's saved predictions",
    "compare": "several methods beside each other",
    "tables": "the papers' tables beside one's own numbers",
    "build": "sets to train from, and test sets",
    "export": "a network as ONNX, or as safetensors to share",
    "fit": "68 landmarks of photos -> fits of a face model",
    "import_weights": "weights that others published -> a checkpoint",
    "convert_bfm": "the raw Basel Face Model -> data/BFM",
    "show": "a contact sheet of a data set",
}


def main() -> None:
    """Run the verb that the first argument names, with the others as its own."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in VERBS:
        del sys.argv[1]
        runpy.run_module(f"prnet.{verb}", run_name="__main__", alter_sys=True)
        return
    listed = "\n".join(f"  {name:14} {meaning}" for name, meaning in VERBS.items())
    usage = f"usage: prnet VERB [KEY=VALUE ...]\n\n{listed}\n\nprnet VERB --help has its options."
    if verb in ("-h", "--help"):
        sys.stdout.write(usage + "\n")
    else:
        sys.exit(f"prnet: no verb {verb!r}\n{usage}")


if __name__ == "__main__":
    main()
