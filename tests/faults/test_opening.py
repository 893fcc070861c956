"""Every place of the package that opens a file, by the call it makes: what is new here is looked at, and gets a canary
in sweeps.CANARIES where somebody else may have made the file."""

import ast
import functools
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "hf_lowlabel"
OPENS = {
    *("open", "read_text", "read_bytes", "read_json", "read_yaml", "read_settings", "load_file", "safe_open"),
    *(
        "from_pretrained",
        "open_model",
        "open_image",
        "safe_load",
        "load_dataset",
        "load_dataset_builder",
        "memmap",
        "DictReader",
    ),
    *("copyfile", "copytree", "hf_hub_download"),
}
NEVER = {  # they run code of what they read, or start programs
    *("eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("torch.load", "np.load", "numpy.load", "pd.read_pickle", "importlib.util.spec_from_file_location"),
}
SPACE = ("space_app.py", "AutoModelForSemanticSegmentation.from_pretrained")  # whose code `export` has just written
MODULES = {"pickle", "dill", "joblib", "subprocess", "shelve", "marshal", "runpy", "pty"}
PLACES = {  # file -> the calls; "ours" is of files that this package wrote or ships
    "data/dataset.py": "",
    "data/files/folders.py": "open open open_image",  # the first 12 or 17 bytes of regular files
    "data/given_images.py": "open_image",
    "data/pixels/masks.py": "read_text",  # classes
    "data/pages.py": "open_image",  # what it has in memory
    "data/pixels/fingerprints.py": "open open",  # pieces and ends of regular files
    "data/splits/published.py": "hf_hub_download hf_hub_download hf_hub_download",
    "data/pixels/images.py": "open",  # Pillow, with a list of formats
    "data/splits/split_lists.py": "read_text",
    "data/splits/split_tables.py": "read_text",  # COCO
    "data/splits/text_lists.py": "open read_text read_text read_text",  # lists, splits.json, CUB's
    "data/splits/yolo_places.py": "read_text",  # data.yaml
    "data/shrink_record.py": "open read_text",
    "data/shrinking.py": "open open open open open_image read_json",  # bytes to copy, those that are there, ours
    "data/splits/splits.py": "read_json",
    "data/pixels/tiff_pages.py": "open_image",  # what is open
    "data/sources/table_paths.py": "open_image open_image",
    "data/sources/tables.py": "read_text load_dataset load_dataset_builder",  # datasets, which runs no code of a set
    "evaluation/plots.py": "open",  # ours, in memory
    "files.py": "open open read_bytes read_bytes read_bytes read_text",
    "hub/app.py": "copyfile copyfile",  # ours
    "hub/card.py": "read_text read_text",  # the layout, its own
    "hub/hub_card.py": "read_text read_text safe_load",
    "hub/push.py": "open read_json read_text read_yaml safe_open",
    "hub/report.py": "read_bytes read_json read_text read_text",
    "hub/report_data.py": "read_settings",
    "hub/smp_export.py": "copyfile from_pretrained",  # what it has just written
    "hub/space_app.py": "from_pretrained from_pretrained from_pretrained from_pretrained load_file read_text read_text",
    "hub/splits.py": "safe_open",
    "hub/upload.py": "hf_hub_download open read_bytes",
    "licences.py": "read_text read_text",
    "locks.py": "open",  # ours
    "machine.py": "read_text read_text read_text read_text read_text read_text",  # /proc, /sys
    "models/checkpoint_resolver.py": "hf_hub_download read_json",
    "models/loading.py": "load_file",
    "models/saved_models.py": "from_pretrained",
    "models/segmentation.py": "read_json",
    "models/segmenter.py": "from_pretrained open",
    "models/timm_checkpoint.py": "from_pretrained",
    "partial_files.py": "read_text",  # /proc
    "api/evaluating.py": "read_yaml",  # ours
    "api/running.py": "read_yaml",  # ours
    "records.py": "read_json read_text",  # and /proc/cpuinfo
    "selection/feature_file.py": "memmap memmap open open open open open",
    "labeling/label_studio.py": "read_json read_json",
    "selection/by_model.py": "read_yaml",  # ours
    "labeling/to_label.py": "copyfile",
    "selection/prior_labels.py": "read_bytes",  # a manifest, to see whether it is ours
    "labeling/labels.py": "read_json read_text",
    "labeling/suggestions.py": "read_json",
    "labeling/mask_assist.py": "from_pretrained from_pretrained",  # transformers' own classes, safetensors
    "labeling/mask_import.py": "copyfile read_json",  # masks that the page wrote, ours
    "labeling/binary_masks.py": "open_image open_image",
    "labeling/mask_places.py": "open_image open_image open_image",
    "labeling/page.py": "read_bytes read_bytes read_bytes",
    "labeling/browser.py": "open open",  # ours
    "labeling/history.py": "open read_bytes read_bytes",  # ours
    "labeling/other_rounds.py": "read_json",  # ours
    "labeling/next_steps.py": "read_json read_yaml",  # ours
    "labeling/predicted.py": "DictReader open_image read_text read_text",  # that `predict` wrote
    "labeling/same_images.py": "open_image read_bytes read_bytes",  # images as `select` copied them
    "labeling/server.py": "open read_bytes read_bytes",  # images as they are, ours
    "labeling/display.py": "open_image",
    "tasks/backbone.py": "open_model",
    "tasks/base.py": "copyfile read_json",
    "tasks/classification.py": "open_model",
    "tasks/segmentation_card.py": "read_json",
    "tasks/predicted_masks.py": "DictReader read_text",  # ours
    "training/checkpoint.py": "load_file load_file load_file open read_bytes read_bytes read_bytes read_text",
    "training/folder.py": "read_text",  # a lock file: the number of a process
    "training/journal.py": "open read_bytes",
    "training/lineage.py": "hf_hub_download",
    "training/priors.py": "safe_open",
    "cli/auto.py": "read_json",  # ours
    "data/annotations/annotated.py": "open_image",
    "data/annotations/annotation_files.py": "read_text read_text",  # COCO, labelme, CVAT, YOLO, Label Studio
    "data/annotations/annotations.py": "read_text read_text",  # names of classes
    "data/files/table_files.py": "DictReader read_bytes read_bytes",
    "data/masks/voc.py": "open_image read_text",  # the header of a mask
    "data/files/workbooks.py": "read_bytes",
    "hub/export_int8.py": "open_image",
    "hub/export.py": "open_image",
    "ladder/first_labels.py": "read_bytes read_json read_json",  # labels again, and what we noted of them
    "ladder/gathering.py": "read_json",  # ours
    "ladder/search_state.py": "read_json read_json",  # ours
    "ladder/advice_files.py": "read_json",
    "ladder/rounds.py": "read_json",  # ours
    "ladder/last_run.py": "read_json",  # ours
    "ladder/trained.py": "load_file",  # ours
    "models/image_processors.py": "from_pretrained",  # transformers' own, of files that were looked at
    "models/transformers_layout.py": "read_json safe_open safe_open",  # transformers' own
    "models/translation_own.py": "from_pretrained",  # of tensors in memory, by a class of transformers' own
    "models/travelling.py": "copyfile",  # its own code
    "models/two_towers.py": "from_pretrained from_pretrained",  # transformers' own
    "tasks/testing.py": "read_yaml",
    "tasks/segmenters.py": "open_model open_model",
    "training/recording.py": "read_yaml",  # ours
    "training/same_run.py": "read_yaml",  # ours
    "table_writer.py": "open",  # ours
    "yaml_files.py": "read_text read_yaml safe_load",
    "cli/train.py": "read_settings",
}


@functools.cache
def called(file: Path) -> list[tuple[str, ast.Call]]:
    """(dotted name, call) of every call in a file."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [(dotted(node.func), node) for node in calls]


def dotted(node: ast.expr) -> str:
    """ "a.b" of such a name; "?.b" where it hangs on something else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def opens(file: Path) -> list[str]:
    """The calls that open a file; `task.open`, which opens a data set, is none."""
    parts = [name.rpartition(".") for name, _ in called(file)]
    mine = ("", "Image", "os", "io")
    return sorted(last for owner, _, last in parts if last in OPENS and (last != "open" or owner in mine))


def test_every_place_that_opens_a_file_is_known():
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        if names := opens(file):
            found[file.relative_to(PACKAGE).as_posix()] = Counter(names)
    known = {file: Counter(names.split()) for file, names in PLACES.items() if names}
    differ = {
        file: " ".join(sorted(found.get(file, Counter()).elements()))
        for file in found.keys() | known.keys()
        if found.get(file) != known.get(file)
    }
    assert not differ, f"these differ from PLACES: {differ}"


def test_nothing_runs_what_it_reads():
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {a.name.split(".")[0] for a in node.names} if isinstance(node, ast.Import) else {node.module}
                wrong += [f"{file.name}: import {name}" for name in names & MODULES]
        for name, node in called(file):
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            trusts = given.get("trust_remote_code") and (file.name, name) != SPACE
            if name in NEVER or given.get("shell") or trusts:
                wrong.append(f"{file.name}:{node.lineno}: {name}")
    assert not wrong, wrong
