"""Every code the data set doctor gives itself: what it means, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """What stands behind a code.

    Attributes:
        meaning: What was found, in general.
        cure: What to do; the end of every message. "" where the message itself says it.
    """

    meaning: str
    cure: str


_LOOK = "Look at the case"
_FIX = "`medseg check --fix` writes a repaired copy"

CODES: Mapping[str, Code] = {
    # Files
    "missing-file": Code("no file of a case that is needed is there", "Fetch the files"),
    "incomplete-case": Code("a case is there in part", "Fetch the file, or unlist the case"),
    "absent-cases": Code("cases of which no file is there", ""),
    "not-checked": Code("checking the case failed", "Check it alone, with more memory"),
    "label-without-image": Code("a label of a folder has no image", "Add the image, or remove it"),
    "image-without-label": Code("an image of a folder has no label; it is a test case",
                                "Add the label, if the case is meant for training"),
    "unlisted-file": Code("a volume lies beside listed ones, but in no case",
                          "List it, or move it out of the folder"),
    # Manifest
    "case-id-twice": Code("two cases have one name", "Give each its own `case_id`"),
    "image-in-two-parts": Code("one image file is in two folds, or in training and test",
                               "List it once"),
    "group-in-two-folds": Code("cases of one group (a patient) are in different folds",
                               "Draw the folds again with `medseg manifest --folds`"),
    "cases-without-fold": Code("some training cases have a fold, others none",
                               "Give every training case a fold, or none"),
    "wrong-image-count": Code("a case lists more or fewer images than there are channels",
                              "List one file per channel, or one for all"),
    "contradiction": Code("the manifest contradicts itself in another way", "Correct the manifest"),
    "patient-in-two-folds": Code("file names with one BIDS subject (`sub-…`) are in different "
                                 "folds, or in training and test",
                                 "Give these cases one `group` and draw the folds again"),
    # One image
    "constant-image": Code("every voxel of a channel has one value", "Export the image again"),
    "nearly-constant-image": Code("all but a few voxels of a channel have one value",
                                  f"{_LOOK}: the export may have failed"),
    "image-is-label": Code("an image holds nothing but label values",
                           "Put the image where the label was listed"),
    "equal-channels": Code("two channels of a case are equal", "List a different file per channel"),
    "channel-grids-differ": Code("channels lie on different grids", ""),
    "implausible-spacing": Code("voxels or the whole volume are of a size no scanner makes",
                                "Correct the spacing in the header; it is in mm"),
    # One label
    "label-grid-close": Code("label and image mean the same voxels, but their headers differ by up "
                             "to half a voxel", _FIX + " on the image's grid"),
    "label-grid-differs": Code("label and image lie on different grids",
                               "Resample the label onto the image, or find its own image"),
    "label-outside-image": Code("part of a label lies outside the box of its image",
                                "Check whether label and image belong together"),
    "not-a-label": Code("label values are no whole numbers", "Write the label map as integers"),
    "label-rounding": Code("label values are whole numbers but for rounding noise", _FIX),
    "unknown-label": Code("a label holds values that the label table does not name",
                          "Add them to `labels` in the manifest, or correct the file"),
    "empty-label": Code("a label holds no voxel of any class",
                        "Make sure that the structure is truly absent"),
    "full-label": Code("nearly every voxel is foreground", f"{_LOOK}: the label may be inverted"),
    # One case against the others: images
    "clipped-image": Code("many voxels share the largest value",
                          "Export the image without saturation"),
    "intensity-outlier": Code("intensities unlike those of the other images",
                              f"{_LOOK}: unit, window, modality or inversion may differ"),
    "spacing-outlier": Code("a spacing unlike that of the other images",
                            "Check the spacing in the header"),
    "size-outlier": Code("a size in mm unlike that of the other images",
                         f"{_LOOK}: the field of view or the spacing may be wrong"),
    "orientation-outlier": Code("an orientation that hardly any other image has",
                                "Check that left and right are as the header says; the reader "
                                "itself copes with any orientation"),
    "orientation-mix": Code("the images have several orientations", ""),
    # One case against the others: labels
    "tiny-label": Code("a class has hardly any voxel, in itself or beside the other cases",
                       f"{_LOOK}: voxels may be a slip of the brush"),
    "huge-label": Code("a class is far larger than in the other cases", _LOOK),
    "missing-class": Code("a class that nearly every other case has is absent",
                          "Make sure that the structure is truly absent"),
    "rare-class": Code("a class occurs in a single case", "Check the label values of that case"),
    "class-never-occurs": Code("no label holds a class of the table",
                               "Take it out of `labels`, or find its cases"),
    "fold-without-class": Code("no case of a fold holds a class that others hold",
                               "Draw the folds again; that fold cannot validate the class"),
    "stray-component": Code("a class that is in one piece elsewhere has a piece apart",
                            f"{_LOOK} and remove the piece if it is a slip"),
    # Duplicates
    "duplicate-image": Code("two images have equal content, whatever their orientation and type",
                            "Keep one, or keep both in one fold as one `group`"),
    "near-duplicate-image": Code("two images are equal but for intensity scale, noise or a slight "
                                 "resampling",
                                 "Compare them; keep one, or both as one `group`"),
    "duplicate-label": Code("labels of different images are equal",
                            "Find out which of them belongs to its image"),
    # Wrong pairs
    "label-of-another-case": Code("a label lies on the grid of another case's image",
                                  "Compare the pairs; the files may be mixed up"),
    "swapped-labels": Code("each of two labels fits the other's image better",
                           "Compare the pairs; the two may be mixed up"),
    "mirrored-label": Code("a label fits its image better when mirrored",
                           f"{_LOOK}: an axis of the label may be flipped"),
    "shifted-label": Code("a label fits its image better a few voxels away",
                          f"{_LOOK}: the origin of the label may be wrong"),
    "poor-fit": Code("the borders of a label follow the image far worse than in the other cases",
                     f"{_LOOK}: the label may be of another case"),
}  # fmt: skip
"""By code. The strict reader has codes of its own besides."""
