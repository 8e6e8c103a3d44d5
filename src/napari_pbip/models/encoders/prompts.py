"""The default text prompt of each tissue class: a sentence that describes its appearance."""

from __future__ import annotations

import re

_TABLE = (
    (
        ("tumour", "tumor", "tum", "te", "tumour epithelium", "tumor epithelium", "cancer", "carcinoma", "malignant"),
        "An H&E image of tumour: crowded atypical epithelial cells with large, dark, irregular nuclei.",
    ),
    (
        ("stroma", "str", "tas", "tumour-associated stroma", "tumor-associated stroma", "connective tissue"),
        "An H&E image of stroma: pink collagen fibres with scattered spindle-shaped fibroblasts.",
    ),
    (
        ("lymphocytes", "lymphocyte", "lym", "til", "tils", "immune", "inflammatory", "inflammation", "lymphoid"),
        "An H&E image of lymphocytes: a dense crowd of small, round, dark blue nuclei with hardly any cytoplasm.",
    ),
    (
        ("necrosis", "necrotic", "nec"),
        "An H&E image of necrosis: dead pink tissue with ghosts of cells and fragments of nuclei.",
    ),
    (
        ("gland", "glands", "gld", "benign"),
        "An H&E image of glands: rings of columnar epithelial cells around an open lumen.",
    ),
    (
        ("normal mucosa", "norm", "normal", "mucosa", "normal epithelium", "crypt"),
        "An H&E image of normal mucosa: regular rows of crypts with goblet cells and small nuclei at their base.",
    ),
    (
        ("adipose", "adi", "fat", "adipose tissue", "adipocytes"),
        "An H&E image of adipose tissue: large empty white fat cells with thin walls, like a honeycomb.",
    ),
    (
        ("muscle", "mus", "smooth muscle"),
        "An H&E image of smooth muscle: parallel bundles of pink fibres with long, thin nuclei.",
    ),
    (
        ("mucus", "muc", "mucin"),
        "An H&E image of mucus: pale blue-grey pools without structure and with few cells.",
    ),
    (
        ("debris", "deb"),
        "An H&E image of debris: loose remains of dead cells, mucus and inflammatory cells.",
    ),
    (
        ("background", "back", "bg", "bac", "glass"),
        "An image of empty glass: a white or grey background without tissue.",
    ),
    (
        ("blood", "bld", "haemorrhage", "hemorrhage", "erythrocytes", "red blood cells"),
        "An H&E image of blood: packed bright red discs without nuclei.",
    ),
    (
        ("vessel", "vessels", "ves", "blood vessel"),
        "An H&E image of a blood vessel: a round or long lumen lined by flat endothelium, with red blood cells.",
    ),
    (
        ("nerve", "nrv", "ner"),
        "An H&E image of a nerve: a pale bundle of wavy fibres with slender nuclei inside a sheath.",
    ),
    (
        ("alveoli", "alv", "lung", "normal lung"),
        "An H&E image of normal lung: thin alveolar walls around wide air spaces.",
    ),
)
_SENTENCES = {name: sentence for names, sentence in _TABLE for name in names}


def default_sentence(class_name: str) -> str:
    """Return the sentence for a tissue class.

    Parameters
    ----------
    class_name
        A name or an abbreviation as data sets use it (``TUM``, ``lymphocytes``), in upper or lower case. A longer name
        is recognised by the last known word in it (``invasive tumour``); an unknown name becomes part of the sentence.
    """
    words = re.findall(r"[\w&]+", class_name.casefold().replace("_", " "))
    whole = " ".join(words)
    parts = () if {"no", "non", "not", "without"} & {*words} else reversed(words)  # "no tumour" is not tumour
    for name in (whole, whole.replace(" ", "-", 1), *parts):
        if name in _SENTENCES:
            return _SENTENCES[name]
    return f"An H&E image of {whole or class_name}."
