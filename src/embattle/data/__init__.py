"""Data sets as uint8 pictures with stable ids: named ones, and any folder of pictures."""

from embattle.data.catalogue import DATASETS, data_root, folder_of, has_size, has_split, load
from embattle.data.folder import load_folder
from embattle.data.imageset import ImageSet, Split

__all__ = ["DATASETS", "ImageSet", "Split", "data_root", "folder_of", "has_size", "has_split", "load", "load_folder"]
