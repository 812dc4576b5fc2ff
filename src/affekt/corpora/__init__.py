"""The registry of corpora. A new corpus is a file in this folder and a line here."""

from affekt.registry import Registry

corpora = Registry(
    "corpus",
    {
        "cremad": "affekt.corpora.cremad:CREMAD",
        "emodb": "affekt.corpora.emodb:EMODB",
        "iemocap": "affekt.corpora.iemocap:IEMOCAP",
        "meld": "affekt.corpora.meld:MELD",
        "ravdess": "affekt.corpora.ravdess:RAVDESS",
        # Layouts of the user's own data.
        "folder": "affekt.corpora.folder:FOLDER",
        "table": "affekt.corpora.table:TABLE",
    },
)
