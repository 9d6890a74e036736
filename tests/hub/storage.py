"""The endpoints that keep and give large objects: LFS, plain and in parts, and Xet's store of chunks."""

from __future__ import annotations

from hashlib import sha256

from hub.access import find_writable
from hub.messages import Refusal, Request, Response, byte_range, part_of, reply
from hub.xet import pack_chunks, reconstruction

PARTS_FROM = 20 * 2**20
PART = 5 * 2**20


def store_of(request: Request) -> str:
    """Address of the store of chunks."""
    return f"{request.storage}/xet"


def lfs_batch(request: Request, id: str, kind: str = "model") -> Response:
    """Where to put each object; nowhere, where it is there already."""
    find_writable(request, kind, id)
    verify = f"{request.base}/lfs-verify"
    objects = []
    for item in request.json()["objects"]:
        name, size = item["oid"], item["size"]
        answer = {"oid": name, "size": size}
        if request.state.find_object(name) is None:
            href = f"{request.storage}/objects/{name}"
            upload = {"href": href, "header": {}}
            if size >= PARTS_FROM:
                count = -(-size // PART)
                parts = {f"{number:05}": f"{href}/part/{number}" for number in range(1, count + 1)}
                upload = {"href": f"{href}/complete", "header": {"chunk_size": str(PART), **parts}}
            answer["actions"] = {"upload": upload, "verify": {"href": verify}}
        objects.append(answer)
    whole = any("chunk_size" in item.get("actions", {}).get("upload", {}).get("header", {}) for item in objects)
    return reply({"transfer": "multipart" if whole else "basic", "objects": objects})


def put_object(request: Request, name: str) -> Response:
    keep(request, name, request.body)
    return Response()


def put_part(request: Request, name: str, number: str) -> Response:
    request.state.parts[name, int(number)] = request.body
    return Response(headers={"ETag": f'"{sha256(request.body).hexdigest()}"'})


def complete_object(request: Request, name: str) -> Response:
    parts = request.json()["parts"]
    numbers = [part["partNumber"] for part in parts]
    content = b"".join(request.state.parts[name, number] for number in numbers)
    if [f'"{sha256(request.state.parts[name, n]).hexdigest()}"' for n in numbers] != [part["etag"] for part in parts]:
        raise Refusal(400, "a part is not what was sent")
    keep(request, name, content)
    return reply({})


def keep(request: Request, name: str, content: bytes) -> None:
    if sha256(content).hexdigest() != name:
        raise Refusal(400, "the object is not what its sha256 says")
    request.state.objects[name] = content


def verify_object(request: Request) -> Response:
    item = request.json()
    if len(stored(request, item["oid"])) != item["size"]:
        raise Refusal(400, "the object has another size")
    return reply({})


def get_object(request: Request, name: str) -> Response:
    content = stored(request, name)
    return part_of(content, request.headers.get("range"), {"ETag": f'"{name}"'})


def stored(request: Request, name: str) -> bytes:
    content = request.state.find_object(name)
    if content is None:
        raise Refusal(404, "there is no such object")
    return content


def put_xorb(request: Request, name: str) -> Response:
    request.state.xet.add_xorb(name, request.body)
    return reply({"was_inserted": True})


def put_shard(request: Request) -> Response:
    for content in request.state.xet.files_of(request.body):
        request.state.objects[sha256(content).hexdigest()] = content
    return reply({"result": 1})


def get_reconstruction(request: Request, name: str) -> Response:
    content = stored(request, name)
    first, last = byte_range(request.headers.get("range", "bytes=0-"), len(content))
    return reply(reconstruction(name, content, first, last, f"{store_of(request)}/xorbs/{name}"))


def get_xorb(request: Request, name: str) -> Response:
    return part_of(pack_chunks(stored(request, name)), request.headers.get("range"), {})


HEX = r"(?P<name>[0-9a-f]{64})"
STORAGE = [
    ("POST", r"/(?:(?P<kind>dataset|space)s/)?(?P<id>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", f"/objects/{HEX}", put_object),
    ("PUT", rf"/objects/{HEX}/part/(?P<number>\d+)", put_part),
    ("POST", f"/objects/{HEX}/complete", complete_object),
    ("POST", "/lfs-verify", verify_object),
    ("GET", f"/objects/{HEX}", get_object),
    ("POST", f"/xet/v1/xorbs/default/{HEX}", put_xorb),
    ("POST", "/xet/v1/shards", put_shard),
    ("GET", f"/xet/v1/reconstructions/{HEX}", get_reconstruction),
    ("GET", f"/xet/xorbs/{HEX}", get_xorb),
]
