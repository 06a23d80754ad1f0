"""Albums, stored objects, images."""

import sqlalchemy as sa
from alembic import op


revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "album",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("issuer", sa.String(length=128), nullable=False),
        sa.Column("public_id", sa.String(length=128), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("storage", sa.String(length=64), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("images_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("views_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("deleted_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_album")),
    )
    with op.batch_alter_table("album", schema=None) as batch_op:
        batch_op.create_index(
            "ix_album_owner", ["issuer", "owner", "created_ms", "id"], unique=False
        )
        batch_op.create_index("uq_album_issuer_public_id", ["issuer", "public_id"], unique=True)

    op.create_table(
        "stored_object",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("album_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("storage", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("md5", sa.String(length=32), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.String(length=8), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["album_id"], ["album.id"], name=op.f("fk_stored_object_album_id_album")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stored_object")),
        sa.UniqueConstraint("key", name=op.f("uq_stored_object_key")),
    )
    with op.batch_alter_table("stored_object", schema=None) as batch_op:
        batch_op.create_index(
            "uq_stored_object_album_id_sha256",
            ["album_id", "sha256"],
            unique=True,
            sqlite_where=sa.text("sha256 IS NOT NULL"),
            postgresql_where=sa.text("sha256 IS NOT NULL"),
        )

    op.create_table(
        "image",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("album_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "object_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("rotation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("crop_x", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("crop_y", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("crop_w", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("crop_h", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("rendered", sa.String(length=4), nullable=False),
        sa.Column("infos", sa.Text(), nullable=False),
        sa.Column("exifs", sa.Text(), nullable=False),
        sa.Column("gps_exifs", sa.String(length=64), nullable=True),
        sa.Column("gps_html", sa.String(length=64), nullable=True),
        sa.Column("gps_ip", sa.String(length=64), nullable=True),
        sa.Column("latitude", sa.Double(), nullable=True),
        sa.Column("longitude", sa.Double(), nullable=True),
        sa.Column("taken_ms", sa.BigInteger(), nullable=True),
        sa.Column("uploader", sa.String(length=128), nullable=True),
        sa.Column("file_name", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["album_id"], ["album.id"], name=op.f("fk_image_album_id_album")),
        sa.ForeignKeyConstraint(
            ["object_id"], ["stored_object.id"], name=op.f("fk_image_object_id_stored_object")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
    )
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.create_index("ix_image_album", ["album_id", "created_ms", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_object_id"), ["object_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_image_object_id"))
        batch_op.drop_index("ix_image_album")

    op.drop_table("image")
    with op.batch_alter_table("stored_object", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_stored_object_album_id_sha256",
            sqlite_where=sa.text("sha256 IS NOT NULL"),
            postgresql_where=sa.text("sha256 IS NOT NULL"),
        )

    op.drop_table("stored_object")
    with op.batch_alter_table("album", schema=None) as batch_op:
        batch_op.drop_index("uq_album_issuer_public_id")
        batch_op.drop_index("ix_album_owner")

    op.drop_table("album")
