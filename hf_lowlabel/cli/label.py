"""The verb label: a page in a browser, for classes or for masks."""

from __future__ import annotations

from .flags import Parser


def label(argv: list[str]) -> int:
    parser = Parser(
        prog="hf-lowlabel label",
        description="Label images in a browser: one class each in a folder that `select` wrote, or masks in any folder "
        "of images. Everything is saved at once; the same command resumes after any stop.",
    )
    parser.add_argument("folder", help="folder that `hf-lowlabel select` wrote; or, for masks, any folder of images")
    parser.add_argument("--task", help="segmentation: masks of a folder of images (default: as for `select`)")
    masks = parser.add_argument_group("masks")
    masks.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="NAME",
        help="classes in the order of their values, or a text file (default: FOLDER/classes.txt, else named on the "
        "page)",
    )
    masks.add_argument(
        "--mask-format",
        choices=("index", "binary"),
        help="what the masks of a folder of images are: class numbers, or 0 and 255 (default: numbers; masks that "
        "look like the others have to be declared)",
    )
    masks.add_argument("--model", metavar="RUN", help="a segmenter whose masks you correct: a run folder or Hub id")
    masks.add_argument(
        "--assist",
        metavar="SAM",
        help="clicks and boxes become masks: facebook/sam2.1-hiera-tiny or another SAM of transformers",
    )
    masks.add_argument(
        "--superpixels", type=int, default=400, metavar="INT", help="approximate number per image (default: 400)"
    )
    masks.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        default=[],
        metavar=("LOW", "HIGH"),
        help="black and white of >8-bit images (default: as --model)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        help="port on this machine's loopback address (default: a free one); forward it to another machine under "
        "the same number, as by ssh -L 8000:127.0.0.1:8000 HOST for --port 8000",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser; print the address only")
    args = vars(parser.parse_args(argv))
    from ..labeling.pages import label

    label(open_browser=not args.pop("no_browser"), **args)
    return 0
