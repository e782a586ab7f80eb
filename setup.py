"""What pyproject.toml can't say: the wheel has configs/ as fairseq_vat/configs."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies configs/; an editable install finds it beside the package, where it is."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for source, target in self._configs().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode=True):
        return [*super().get_outputs(include_bytecode), *self._configs().values()]

    def get_source_files(self):
        return [*super().get_source_files(), *self._configs()]

    def _configs(self):
        target = Path(self.build_lib, "fairseq_vat")
        return {str(path): str(target / path) for path in sorted(Path("configs").rglob("*.yaml"))}


setup(cmdclass={"build_py": BuildWithConfigs})
