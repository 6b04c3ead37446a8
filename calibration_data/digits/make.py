"""Write ``calibration.npz`` and ``manifest.json`` beside this script, from the recipe's ``calibrate`` split.

    python calibration_data/digits/make.py

Running it again gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "recipes" / "digits"))
import data

FOLDER = Path(__file__).resolve().parent


def main(folder: Path = FOLDER) -> None:
    """Write both files into ``folder``."""
    samples, labels = data.calibrate()
    archive = folder / "calibration.npz"
    # numpy stamps every member with 1980-01-01 and compresses nothing, so the bytes depend on the arrays alone.
    np.savez(archive, allow_pickle=False, samples=samples, labels=labels)
    manifest = {
        "file": archive.name,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "made_by": "calibration_data/digits/make.py",
        "count": len(samples),
        "arrays": {
            "samples": {"shape": list(samples.shape), "dtype": str(samples.dtype), "layout": "N, H, W, C; raw 0..255"},
            "labels": {"shape": list(labels.shape), "dtype": str(labels.dtype), "layout": "N; classes 0..9"},
        },
        "source": {
            "name": "Optical Recognition of Handwritten Digits (test half, as bundled with scikit-learn)",
            "creators": ["E. Alpaydin", "C. Kaynak"],
            "url": "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            "doi": "10.24432/C50P49",
            "file_sha256": data.CSV_SHA256,
            "changes": "split, enlarged from 8x8 to 32x32 by bilinear interpolation, scaled from 0..16 to 0..255",
        },
        "licence": "CC-BY-4.0",
        "licence_url": "https://creativecommons.org/licenses/by/4.0/",
        "split": "calibrate: shares no image with train, select or evaluate",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
