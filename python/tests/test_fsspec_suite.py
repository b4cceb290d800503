"""fsspec's own suite for implementations."""

from __future__ import annotations

import fsspec.tests.abstract as suite
import pytest


class MobulaFixtures(suite.AbstractFixtures):
    @pytest.fixture
    def fs(self, mobula_fs):
        return mobula_fs

    @pytest.fixture
    def fs_path(self):
        return "/suite"

    @pytest.fixture
    def supports_empty_directories(self):
        return True


class TestCopy(suite.AbstractCopyTests, MobulaFixtures):
    pass


class TestGet(suite.AbstractGetTests, MobulaFixtures):
    pass


class TestPut(suite.AbstractPutTests, MobulaFixtures):
    pass


class TestPipe(suite.AbstractPipeTests, MobulaFixtures):
    pass


class TestOpen(suite.AbstractOpenTests, MobulaFixtures):
    pass
