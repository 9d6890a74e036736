"""Install a built file of stfit into a new environment and train the example there, away from the repository.

python tests/installed/try_package.py dist/stfit-0.1.0-py3-none-any.whl [--torch torch==2.13.0]
"""

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--torch", default="torch")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        environment, work = Path(folder) / "environment", Path(folder) / "work"
        venv.create(environment, with_pip=True)
        work.mkdir()
        programs = environment / ("Scripts" if sys.platform == "win32" else "bin")

        def run(program: str, *words: str) -> str:
            command = [str(programs / program), *words]
            return subprocess.run(command, cwd=work, check=True, stdout=subprocess.PIPE, text=True).stdout

        run("pip", "install", "--quiet", arguments.torch)
        run("pip", "install", "--quiet", str(arguments.file.resolve()))
        run("stfit", "init", "--example")
        result = json.loads(run("stfit", "train", "quickstart.yaml", "--json"))
        gain = result["metrics"]["helpdesk/accuracy_cosine"] - result["baseline"]["helpdesk/accuracy_cosine"]
        assert gain > 0.1, result
        sys.stdout.write(f"{arguments.file}: the example trained, accuracy {gain:+.4f}\n")


if __name__ == "__main__":
    main()
