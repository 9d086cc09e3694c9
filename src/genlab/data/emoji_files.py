"""Finds and checks the files of the two npm packages that data=emoji reads."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from genlab.errors import DataError
from genlab.files.paths import read_path
from genlab.files.regular_file import read_bytes

PICTURES = "emoji-datasource-google", "16.0.0"
NAMES = "emojibase-data", "17.0.0"
# SHA-256 of files of these versions, by their path; of the pictures, of all in the order of emoji.json together.
SHA256 = {
    "emoji.json": "1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f",
    "pictures": "90ed40284e06a0282ff52744b73b008d2074671303bce5ff90dc0c7a379f8049",
    "bn/data.json": "198a0894f9714e8b57d6e41202c33fee037d3d83a0e422fcebe9bf2806e52ef4",
    "da/data.json": "bca350ca459d1e825d1b5d275065a8ad0f4b04291bef38e4e21c17376b881560",
    "de/data.json": "62c4877944d2347dc1a529b53f939ad87df09ba3e1f401ee31748aa59ff6f7ea",
    "en-gb/data.json": "6c2e407b7f0566ba8f5b24e064203e6233e2a117673161e119dff3ea1a140cf8",
    "en/data.json": "ed014f1049bd370c5794f815850156196ac382850f51c3e9f6a9e83553fb3f01",
    "es-mx/data.json": "8998139baec10eff5ce50a4c7cc6c43507d1264b6defe2e9eca5c77fc93ec932",
    "es/data.json": "ba2a0c61edf8b29e6584e4713bd6eead6b8702c6d488c59cd394c96934e25707",
    "et/data.json": "d43a4e6a8dc3b5107643234de3c585800272eff3b4f665a017ac0f58ea6be099",
    "fi/data.json": "5c3f822d23249bc360a9aa03a88a979b37248fc33167a078f0421056bbb44a45",
    "fr/data.json": "2d98e00803f7c777f9127002b59965151e4e0522767c899f7af897d8ca98454e",
    "hi/data.json": "4a0cb9f58cfde6ab08460e7b0b175fb37fa5c2d90566393284ffeafc8028d1c9",
    "hu/data.json": "5d72c4d4fbdb8ca0e318dedb40eb2647d86668af4875ce72cd095376c14334d9",
    "it/data.json": "6e8de8dc57857d5660c10ff0ee820ac02b27a078f11f864abc55252a677d9a45",
    "ja/data.json": "145a05c890312867ea1535ded173d81c4ac55aebed1a560c3d171e8fbed5554b",
    "ko/data.json": "95e8f7d51e21537e0e131c51dd96eeca98abe33f9a0a0e05119ff754d8125e99",
    "lt/data.json": "75ffa48dc20266624fad9cc61d90c578cbfbfd9a8878a53a3df107f5f90db411",
    "ms/data.json": "8fdd7ace711f87fbde13d1e0fcf260116d25915738cc0094ec8c118d11cd5d06",
    "nb/data.json": "49f7cd4c8336fa7691408e12f9405a0e6dd67123af0339be23a0bda35e2143b9",
    "nl/data.json": "e17e755ddf6c8e02459361f31ea9ca66c9db56ea8f25f20fa35055ccc35d10d7",
    "pl/data.json": "a9f2e759b6a1f9b47e7332853362d4457815e9119fd387ee04d2d2115c551e3f",
    "pt/data.json": "c2eb58c08e1414a11db0d44764591bf5c8dbd444b54e171ea12715f8ed0006e5",
    "ru/data.json": "8e331ec0298e1e574c6a839f437cd653dc86068cd1820c79ea2f99b2c97f69d5",
    "sv/data.json": "33c68e4fcf7372602ca98a8b44b8d71c727e6763cf95b672c7db07b3238edf21",
    "th/data.json": "30cc6369c08cc2850ab4a78d970a251466ec460b4e77acec1788e8ef7e20b2ca",
    "uk/data.json": "5ed051d4667bba015d918196b8d428ccbee1393814b90c74d51a74f6b4a73d91",
    "vi/data.json": "bde4b38193726bbbaeb59b2210193e93d5badfecd40d69d3cb87fd94f5df0952",
    "zh-hant/data.json": "32a2012fb9f7816a921984244752033da36b1775845c6407ec8a62915cb51dac",
    "zh/data.json": "ab26566248ccb4e991c6314a0b98e07daa38325bf44bc32260a6502f4cd6cb37",
}


def languages() -> list[str]:
    """Those that have names."""
    return [path.removesuffix("/data.json") for path in SHA256 if path.endswith("/data.json")]


def package(root: str, name: str, version: str) -> Path:
    """The folder of a package below ``root``: as npm installs it, or as it is unpacked from npm's archive.

    Raises DataError, with the command that fetches it: it is missing, or of another version.
    """
    top = read_path(root)
    others = []
    for folder in (
        top / "node_modules" / name,
        top / name,
        top / f"{name}-{version}" / "package",
        top / "package",
        top,
    ):
        try:
            found = json.loads(read_bytes(folder / "package.json", largest=1 << 20))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict) and found.get("name") == name:
            if found.get("version") == version:
                return folder
            others.append(f"{folder} has version {str(found.get('version'))[:40]!r}")
    what = f"{others[0]} of it" if others else f"it is not in {root}"
    raise DataError(f"data=emoji needs {name} {version} of npm, and {what}. Fetch it: {command(root)}")


def command(root: str) -> str:
    """What fetches both packages."""
    packages = " ".join(f"{name}@{version}" for name, version in (PICTURES, NAMES))
    return f"npm install --ignore-scripts --prefix {os.path.join(root, '')} {packages}"


def read_json(folder: Path, path: str, root: str) -> Any:
    """A file of a package. Raises DataError, with the command that fetches it again, if it is not the published one."""
    content = read_file(folder, path, root)
    check(hashlib.sha256(content).hexdigest(), folder / path, SHA256[path], root)
    return json.loads(content)


def read_file(folder: Path, path: str, root: str) -> bytes:
    """The bytes of a file of a package, unchecked. Raises DataError."""
    try:
        return read_bytes(folder / path, root=folder)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise DataError(f"cannot read {folder / path} ({cause}). Fetch it again: {command(root)}") from error


def check(found: str, what: object, expected: str, root: str) -> None:
    """Raises DataError if a checksum is not the expected one."""
    if found != expected:
        raise DataError(
            f"{what} is not as published: its SHA-256 is {found[:12]}..., expected {expected[:12]}.... "
            f"Remove it and fetch it again: {command(root)}"
        )
