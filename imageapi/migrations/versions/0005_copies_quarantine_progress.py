"""Copies that moves leave, the quarantine of bytes without rows, the progress of long tasks."""

import sqlalchemy as sa
from alembic import op


revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "progress",
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.Column("place", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("task", name=op.f("pk_progress")),
    )
    op.create_table(
        "quarantined",
        sa.Column("storage", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("storage", "key", name=op.f("pk_quarantined")),
    )
    op.create_table(
        "object_copy",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column(
            "object_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("storage", sa.String(length=64), nullable=False),
        sa.Column("work_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["object_id"],
            ["stored_object.id"],
            name=op.f("fk_object_copy_object_id_stored_object"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_object_copy")),
    )
    with op.batch_alter_table("object_copy", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_object_copy_object_id"), ["object_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("object_copy", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_object_copy_object_id"))

    op.drop_table("object_copy")
    op.drop_table("quarantined")
    op.drop_table("progress")
