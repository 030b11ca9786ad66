# SPDX-License-Identifier: Apache-2.0
# CPython: large bytearrays, lists of small objects, mmap, threads, a forked child.
import array, hashlib, mmap, os, random, threading, zlib

random.seed(3)
digest = hashlib.sha256()
pieces = [bytearray(random.randbytes(4 << 20)) for _ in range(20)]
words = {str(i): [i, str(i * 7)] for i in range(200000)}
numbers = array.array("Q", range(2000000))
anonymous = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(0, len(anonymous), 4096):
    anonymous[i:i + 8] = i.to_bytes(8, "little")
packed = [None] * 4


def pack(k):
    packed[k] = hashlib.sha256(zlib.compress(bytes(pieces[k]), 1)).hexdigest()


threads = [threading.Thread(target=pack, args=(k,)) for k in range(4)]
for t in threads:
    t.start()
for t in threads:
    t.join()
pid = os.fork()
if not pid:
    same = all(anonymous[i:i + 8] == i.to_bytes(8, "little") for i in range(0, len(anonymous), 4096))
    pieces[0][0:4] = b"mine"
    os._exit(0 if same and sum(numbers) == 1999999000000 else 1)
print(os.waitpid(pid, 0)[1])
for turn in range(2):
    for piece in pieces:
        digest.update(piece)
        piece[turn::4096] = bytes(len(range(turn, len(piece), 4096)))
digest.update(repr(list(words.items())[::1000]).encode())
digest.update(anonymous[:])
print(digest.hexdigest(), packed, numbers[::100000])
