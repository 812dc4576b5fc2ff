"""The registry of corpora. A new corpus is a file in this folder and a line here."""

from affekt.registry import Registry

corpora = Registry(
    "corpus",
    {
        "cremad": "affekt.corpora.cremad:CREMAD",
        "emodb": "affekt.corpora.emodb:EMODB",
        "emogator": "affekt.corpora.emogator:EMOGATOR",
        "emotale": "affekt.corpora.emotale:EMOTALE",
        "iemocap": "affekt.corpora.iemocap:IEMOCAP",
        "meld": "affekt.corpora.meld:MELD",
        "nemo": "affekt.corpora.nemo:NEMO",
        "ravdess": "affekt.corpora.ravdess:RAVDESS",
        "savee": "affekt.corpora.savee:SAVEE",
        "tess": "affekt.corpora.tess:TESS",
        "urdu": "affekt.corpora.urdu:URDU",
        # Layouts of the user's own data.
        "folder": "affekt.corpora.folder:FOLDER",
        "table": "affekt.corpora.table:TABLE",
    },
)
