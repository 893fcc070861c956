from .drawing import make_mask_split  # noqa: F401  transition: this whole file
from .split_lists import match_ids, read_ids, split_from_lists  # noqa: F401
