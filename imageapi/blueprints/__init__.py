"""HTTP only: each view asks `auth` who may and `catalog` to do it."""
