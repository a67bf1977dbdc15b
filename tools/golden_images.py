#!/usr/bin/env python3
"""Writes tests/golden/data/images/: tiny images of every format and mode with what Pillow makes of them, resize cases,
patches and smart_resize cases from transformers. Needs Pillow 13 (older ones resize tall images in another order) and
transformers 5.

usage: golden_images.py [FOLDER]

manifest.json lists the cases; arrays lie in expected.bin at the offsets it names.
"""
import io
import json
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import PIL
from PIL import Image, ImageOps
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

rng = np.random.default_rng(20240229)
blob = bytearray()


def keep(array):
    """Adds an array's bytes to expected.bin and returns their offset."""
    at = len(blob)
    blob.extend(np.ascontiguousarray(array).tobytes())
    return at


def picture(width, height, channels=3):
    """Something between a photo and noise: gradients, an edge, some grain."""
    y, x = np.mgrid[0:height, 0:width]
    out = np.empty((height, width, channels), np.float64)
    for c in range(channels):
        a, b, p = rng.uniform(-1, 1, 2).tolist() + [rng.uniform(0.2, 0.9)]
        wave = 100 * np.sin(p * (a * x + b * y) + c)
        out[..., c] = 128 + wave + 40 * (x > width / 2) + rng.normal(0, 9, (height, width))
    return np.clip(out, 0, 255).astype(np.uint8)


def save(image, **options):
    f = io.BytesIO()
    image.save(f, **options)
    return f.getvalue()


def exif(value, order="<", kind=3):
    """EXIF data with just an orientation; kind 3 is SHORT, 4 is LONG."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    field = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    entry = struct.pack(order + "HHI", 0x112, kind, 1) + field
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def xmp(value, attribute=True):
    text = f'tiff:Orientation="{value}"' if attribute else f"<tiff:Orientation>{value}</tiff:Orientation>"
    return f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{text}</x:xmpmeta>".encode()


def jpeg_segment(data, marker, content):
    """Puts a segment right after the start-of-image marker."""
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_rows(samples, depth):
    """[height, width, channels] of stored samples to PNG rows with filter type 0."""
    out = b""
    for row in samples:
        flat = row.reshape(-1)
        if depth == 16:
            out += b"\0" + flat.astype(">u2").tobytes()
        elif depth == 8:
            out += b"\0" + flat.astype(np.uint8).tobytes()
        else:
            bits = "".join(format(int(v), f"0{depth}b") for v in flat)
            bits += "0" * (-len(bits) % 8)
            out += b"\0" + bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
    return out


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples, depth, color, interlaced=False, before=(), after=()):
    """A PNG of samples [height, width, channels]; before and after: chunks around the pixels."""
    height, width = samples.shape[:2]
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        raw = b"".join(pack_rows(p, depth) for p in passes if p.shape[0] and p.shape[1])
    else:
        raw = pack_rows(samples, depth)
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(raw)), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(k, d) for k, d in chunks)


def riff(*chunks):
    body = b"WEBP" + b"".join(k + struct.pack("<I", len(d)) + d + b"\0" * (len(d) & 1) for k, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_animation(canvas, frames):
    """frames: (x, y, image). The canvas may be larger than the first frame."""
    def three(v):
        return struct.pack("<I", v)[:3]
    chunks = [(b"VP8X", bytes([0x12, 0, 0, 0]) + three(canvas[0] - 1) + three(canvas[1] - 1)),
              (b"ANIM", bytes([9, 99, 199, 255, 0, 0]))]
    for x, y, image in frames:
        stream = save(image, format="WEBP", lossless=True)[12:]
        place = three(x // 2) + three(y // 2) + three(image.width - 1) + three(image.height - 1)
        chunks.append((b"ANMF", place + three(40) + b"\0" + stream))
    return riff(*chunks)


def jpegs():
    colour, gray = Image.fromarray(picture(19, 13)), Image.fromarray(picture(19, 13, 1)[..., 0])
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"jpeg-{name}.jpg", save(colour, format="JPEG", quality=80, subsampling=sampling)
    yield "jpeg-420-wide.jpg", save(Image.fromarray(picture(40, 5)), format="JPEG", quality=60, subsampling=2)
    yield "jpeg-420-one-column.jpg", save(Image.fromarray(picture(1, 23)), format="JPEG", quality=90, subsampling=2)
    yield "jpeg-progressive.jpg", save(colour, format="JPEG", quality=70, progressive=True)
    yield "jpeg-restart.jpg", save(Image.fromarray(picture(33, 33)), format="JPEG", quality=50, restart_marker_rows=1)
    yield "jpeg-rgb.jpg", save(colour, format="JPEG", quality=85, keep_rgb=True)
    yield "jpeg-gray.jpg", save(gray, format="JPEG", quality=75)
    inks = save(Image.fromarray(picture(14, 11, 4), "CMYK"), format="JPEG", quality=85)
    yield "jpeg-cmyk.jpg", inks
    at = inks.index(b"Adobe")
    yield "jpeg-ycck.jpg", inks[:at + 11] + b"\2" + inks[at + 12:]
    for value in range(1, 9):
        tag = exif(value, "<>"[value % 2])
        yield f"jpeg-exif-{value}.jpg", save(Image.fromarray(picture(11, 6)), format="JPEG", quality=70, exif=tag)
    small = save(Image.fromarray(picture(9, 5)), format="JPEG", quality=70)
    yield "jpeg-exif-long.jpg", jpeg_segment(small, 0xE1, exif(6, ">", 4))
    yield "jpeg-exif-9.jpg", jpeg_segment(small, 0xE1, exif(9))
    mark = b"http://ns.adobe.com/xap/1.0/\0"
    yield "jpeg-xmp-8.jpg", jpeg_segment(small, 0xE1, mark + xmp(8))
    yield "jpeg-xmp-and-exif.jpg", jpeg_segment(jpeg_segment(small, 0xE1, mark + xmp(8)), 0xE1, exif(3))
    yield "jpeg-junk-after.jpg", small + b"junk after the end"


def pngs():
    for depth in (1, 2, 4, 8, 16):
        gray = rng.integers(0, 1 << depth, (7, 13, 1))
        if depth == 16:
            gray[0, :6, 0] = (0, 1, 254, 255, 256, 65535)
        for interlaced in (False, True):
            yield f"png-gray-{depth}{'-interlaced' * interlaced}.png", png(gray, depth, 0, interlaced)
    for depth in (8, 16):
        for name, color, channels in (("rgb", 2, 3), ("gray-alpha", 4, 2), ("rgba", 6, 4)):
            samples = rng.integers(0, 1 << depth, (6, 9, channels))
            for interlaced in (False, True):
                yield f"png-{name}-{depth}{'-interlaced' * interlaced}.png", png(samples, depth, color, interlaced)
    for depth in (1, 2, 4, 8):
        colours = min(1 << depth, 20)
        palette = (b"PLTE", rng.integers(0, 256, colours * 3).astype(np.uint8).tobytes())
        yield f"png-palette-{depth}.png", png(rng.integers(0, colours, (5, 11, 1)), depth, 3, before=[palette])
    yield "png-palette-short.png", png(rng.integers(0, 30, (5, 11, 1)), 8, 3, before=[palette])
    alphas = (b"tRNS", bytes([0, 120, 255, 7]))
    yield "png-palette-alpha.png", png(rng.integers(0, 20, (5, 11, 1)), 8, 3, before=[palette, alphas])
    yield "png-palette-interlaced.png", png(rng.integers(0, 16, (9, 10, 1)), 4, 3, True, before=[palette])
    gray, rgb = rng.integers(0, 4, (4, 6, 1)), rng.integers(0, 256, (4, 6, 3))
    yield "png-gray-transparent.png", png(gray, 2, 0, before=[(b"tRNS", b"\0\2")])
    yield "png-rgb-transparent.png", png(rgb, 8, 2, before=[(b"tRNS", struct.pack(">HHH", *rgb[0, 0]))])
    yield "png-gamma.png", png(rgb, 8, 2, before=[(b"gAMA", struct.pack(">I", 22000))])
    yield "png-exif-before.png", png(rgb, 8, 2, before=[(b"eXIf", exif(6)[6:])])
    yield "png-exif-after.png", png(rgb, 8, 2, after=[(b"eXIf", exif(5, ">")[6:])])
    yield "png-xmp.png", png(rgb, 8, 2, before=[(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(8, False))])
    raw = exif(7)
    profile = zlib.compress(b"\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode()))
    yield "png-raw-profile.png", png(rgb, 8, 2, before=[(b"zTXt", b"Raw profile type exif\0\0" + profile)])
    yield "png-filters.png", save(Image.fromarray(picture(31, 17)), format="PNG")
    frames = [Image.fromarray(picture(6, 5)) for _ in range(2)]
    yield "png-animated.png", save(frames[0], format="PNG", save_all=True, append_images=frames[1:])


def webps():
    colour, alpha = Image.fromarray(picture(19, 13)), Image.fromarray(picture(15, 10, 4), "RGBA")
    yield "webp-lossy.webp", save(colour, format="WEBP", quality=70)
    yield "webp-lossy-alpha.webp", save(alpha, format="WEBP", quality=60)
    yield "webp-lossless.webp", save(colour, format="WEBP", lossless=True)
    yield "webp-lossless-alpha.webp", save(alpha, format="WEBP", lossless=True, exact=True)
    more = [Image.fromarray(picture(19, 13))]
    yield "webp-animated.webp", save(colour, format="WEBP", quality=50, save_all=True, append_images=more)
    frame = Image.fromarray(picture(6, 5, 4), "RGBA")
    frames = [(4, 2, frame), (0, 0, Image.fromarray(picture(16, 12)))]
    yield "webp-animated-offset.webp", webp_animation((16, 12), frames)
    yield "webp-exif-6.webp", save(colour, format="WEBP", lossless=True, exif=exif(6)[6:])
    yield "webp-exif-marked.webp", save(colour, format="WEBP", quality=30, exif=exif(2, ">"))
    yield "webp-xmp.webp", save(colour, format="WEBP", lossless=True, xmp=xmp(3))


def expected(data):
    image = Image.open(io.BytesIO(data))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def refuses(data):
    try:
        expected(data)
    except Exception:
        return True
    return False


def decode_cases(folder):
    cases = []
    for name, data in [*jpegs(), *pngs(), *webps()]:
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
        rgb = expected(data)
        # how many bytes the file may be cut to while Pillow still refuses it, however it is cut below that
        cut = 0
        while cut + 1 < len(data) and refuses(data[:cut + 1]):
            cut += 1
        cases.append({"file": name, "width": rgb.shape[1], "height": rgb.shape[0], "rgb": keep(rgb),
                      "refused_below": cut})
    return cases


def resize_cases():
    sizes = [(13, 9, 28, 28), (40, 30, 28, 28), (40, 31, 5, 3), (1, 1, 28, 28), (1, 40, 9, 7),
             (7, 40, 28, 12), (40, 7, 1, 1), (37, 20, 37, 10), (20, 37, 10, 37), (12, 12, 12, 12),
             (70, 33, 35, 18), (33, 5, 34, 5), (30, 40, 28, 35), (30, 40, 28, 36), (40, 3, 39, 40),
             (2, 2, 3, 3), (31, 50, 90, 49), (50, 20, 25, 60)]
    cases = []
    for i, (w, h, to_w, to_h) in enumerate(sizes):
        pixels = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        if i % 2:
            pixels = (pixels > 127).astype(np.uint8) * 255  # overshoots are cut
        out = np.asarray(Image.fromarray(pixels).resize((to_w, to_h), Image.Resampling.BICUBIC))
        cases.append({"from": [w, h], "to": [to_w, to_h], "pixels": keep(pixels), "expected": keep(out)})
    return cases


def patch_cases():
    settings = [
        (31, 45, {"size": {"shortest_edge": 28 * 28, "longest_edge": 28 * 56}}),
        (40, 17, {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 64, "max_pixels": 512}),
        (9, 22, {"patch_size": 3, "temporal_patch_size": 3, "merge_size": 1, "min_pixels": 64, "max_pixels": 300,
                 "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.25], "rescale_factor": 0.004}),
        (16, 8, {"patch_size": 4, "do_resize": False, "do_normalize": False, "min_pixels": 64, "max_pixels": 512}),
        (16, 8, {"patch_size": 2, "do_resize": False, "do_rescale": False, "min_pixels": 64, "max_pixels": 512}),
    ]
    cases = []
    for w, h, options in settings:
        pixels = picture(w, h)
        processor = Qwen2VLImageProcessorPil(**json.loads(json.dumps(options)))  # a copy: it changes what it is given
        out = processor(images=Image.fromarray(pixels), return_tensors="np")
        values = out["pixel_values"].astype(np.float32)
        cases.append({"size": [w, h], "settings": options, "pixels": keep(pixels),
                      "grid": out["image_grid_thw"][0].tolist(), "cols": values.shape[1], "values": keep(values)})
    return cases


def size_cases():
    cases = []
    for i in range(300):
        w, h = (int(v) for v in np.exp(rng.uniform(0, np.log(6000), 2)))
        factor = int(rng.choice([28, 28, 28, 8, 32]))
        if i % 3 == 0:  # halves round to even
            w, h = factor * int(rng.integers(1, 40)) + factor // 2, factor * int(rng.integers(1, 40)) + factor // 2
        least = int(rng.choice([3136, 784, 50176]))
        most = int(rng.choice([12845056, 1003520, 100352]))
        try:
            out_h, out_w = smart_resize(h, w, factor, least, most)
        except ValueError:
            out_h = out_w = 0
        cases.append([w, h, factor, least, most, out_w, out_h])
    return cases


def main():
    default = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "data", "images")
    folder = sys.argv[1] if len(sys.argv) > 1 else default
    if int(PIL.__version__.split(".")[0]) < 13:
        sys.exit(f"Pillow {PIL.__version__} resizes tall images in another order: 13 or later is needed")
    warnings.simplefilter("ignore")
    os.makedirs(folder, exist_ok=True)
    manifest = {"decode": decode_cases(folder), "resize": resize_cases(), "patches": patch_cases(),
                "smart_size": size_cases()}
    with open(os.path.join(folder, "manifest.json"), "w") as f:
        lists = [f'"{k}": [\n' + ",\n".join(json.dumps(c) for c in v) + "\n]" for k, v in manifest.items()]
        f.write("{\n" + ",\n".join(lists) + "\n}\n")
    with open(os.path.join(folder, "expected.bin"), "wb") as f:
        f.write(blob)
    print(f"{len(manifest['decode'])} images, {len(blob)} bytes of expected values in {os.path.normpath(folder)}")


if __name__ == "__main__":
    main()
