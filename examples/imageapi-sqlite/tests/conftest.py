import pytest

pytest.register_assert_rewrite("imageapi.storage.conformance")
