"""The control of the power cuts: pictures stored as Django does by default, row by row.

`python django_store.py FOLDER ACKS COUNT` saves files by `FileSystemStorage`, commits a row for each by
Django's ORM, and only then acknowledges it by its SHA-256.
"""

import hashlib
import os
import sys
from pathlib import Path

import django
from django.conf import settings
from django.core.files.base import ContentFile

folder, acks, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
settings.configure(
    MEDIA_ROOT=str(folder / "media"),
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "rows.sqlite3"}
    },
    USE_TZ=True,
)
django.setup()

from django.db import connection, models  # noqa: E402 - models want settings


class Picture(models.Model):  # noqa: DJ008 - nobody looks at one
    """One picture: where it is, and what its bytes hash to."""

    file = models.FileField()
    sha256 = models.CharField(max_length=64)

    class Meta:
        app_label = "pictures"


if count:
    with acks.open("wb", buffering=0) as promise:
        for _ in range(count):
            data = os.urandom(9000)
            sha256 = hashlib.sha256(data).hexdigest()
            picture = Picture(sha256=sha256)
            picture.file.save("picture.jpg", ContentFile(data))  # saves the row too
            promise.write(f"stored {sha256}".encode())
else:
    with connection.schema_editor() as editor:
        editor.create_model(Picture)
