from .dataset import (
    ImageDataset as SegmentationSource,  # noqa: F401  transition: this whole file
    join as join_images,  # noqa: F401
)
from .opening import load_segmentation  # noqa: F401
