"""The EXIF tags that are told: their names as ExifTool writes them, their values as readable text.

Left out: maker notes, thumbnails and everything else that is binary, and how a TIFF is laid out.

Source: Exif 3.0 §4.6; ExifTool's tag tables for names and wordings, so that both can be compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """A rational as stored; its denominator may be 0."""

    numerator: int
    denominator: int

    def __float__(self) -> float:
        if self.denominator:
            return self.numerator / self.denominator
        return math.copysign(math.inf, self.numerator) if self.numerator else math.nan

    def __str__(self) -> str:
        if self.denominator:
            return f"{self.numerator / self.denominator:.10g}"
        return "inf" if self.numerator else "undef"


Values = Sequence[int | float | Ratio]
Show = Callable[[Values], str]
"""Turns the numbers of a tag, at least one, into text."""


def plain(values: Values) -> str:
    """The numbers themselves."""
    return " ".join(f"{value:.15g}" if isinstance(value, float) else str(value) for value in values)


def _words(*words: str, start: int = 0, others: Mapping[int, str] | None = None) -> Show:
    names = dict(enumerate(words, start)) | dict(others or {})

    def show(values: Values) -> str:
        text = plain(values)
        return names.get(int(text), f"Unknown ({text})") if text.isdecimal() else text

    return show


def _measured(form: Callable[[float], str]) -> Show:
    def show(values: Values) -> str:
        number = float(values[0])
        return form(number) if len(values) == 1 and math.isfinite(number) else plain(values)

    return show


def _seconds(value: float) -> str:
    if 0 < value < 0.25001:
        return f"1/{math.floor(0.5 + 1 / value)}"
    return f"{value:.1f}".removesuffix(".0")


def _power_of_two(value: float, form: Callable[[float], str]) -> str:
    return form(2**value if abs(value) < 100 else 0.0)


def _fraction(value: float) -> str:
    value *= 1.00001
    if value == 0:
        return "0"
    for denominator in (1, 2, 3):
        part = math.trunc(value * denominator)
        if part / (value * denominator) > 0.999:
            return f"{part:+d}" + (f"/{denominator}" if denominator > 1 else "")
    return f"{value:+.3g}"


def _f_number(value: float) -> str:
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"


def _unit(unit: str) -> Show:
    def show(values: Values) -> str:
        text = plain(values)
        return text if text in ("inf", "undef") else f"{text} {unit}"

    return show


def _lens(values: Values) -> str:
    if len(values) != 4:
        return plain(values)
    near, far, wide, tele = ("?" if text in ("inf", "undef") else text for text in map(str, values))
    focal = near if far in ("0", near) else f"{near}-{far}"
    return f"{focal}mm f/{wide}" + ("" if tele in ("0", wide) else f"-{tele}")


def _components(values: Values) -> str:
    names = ("-", "Y", "Cb", "Cr", "R", "G", "B")
    return ", ".join(names[int(v)] if 0 <= v < len(names) else "?" for v in map(float, values))


_COLOURS = ("Red", "Green", "Blue", "Cyan", "Magenta", "Yellow", "White")


def _mosaic(values: Values) -> str:
    cells = [value for value in values if isinstance(value, int)]
    if len(cells) < max(4, len(values)):
        return plain(values)
    across, down = cells[0] * 256 + cells[1], cells[2] * 256 + cells[3]
    if across > 16:  # written in the other byte order, as many cameras do
        across, down = cells[0] + cells[1] * 256, cells[2] + cells[3] * 256
    cells = cells[4:]
    if not (1 <= across <= 16 and 1 <= down <= 16 and across * down <= len(cells)):
        return plain(values)
    names = [_COLOURS[cell] if 0 <= cell < len(_COLOURS) else "Unknown" for cell in cells]
    rows = [names[start : start + down] for start in range(0, across * down, down)]
    return "".join(f"[{','.join(row)}]" for row in rows)


def _clock(values: Values) -> str:
    parts = [float(value) for value in values]
    if len(parts) != 3 or not all(map(math.isfinite, parts)):
        return plain(values)
    micros = round(((parts[0] * 60 + parts[1]) * 60 + parts[2]) * 1_000_000)
    minutes, micros = divmod(micros, 60_000_000)
    seconds = f"{micros / 1_000_000:09.6f}".rstrip("0").removesuffix(".")
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds}"


def degrees(values: Values) -> float | None:
    """Degrees, minutes, seconds as one number; None when one of them is not finite."""
    parts = [float(value) for value in values[:3]]
    if not parts or not all(map(math.isfinite, parts)):
        return None
    angle = 0.0
    for place, part in enumerate(parts):
        angle += part / 60.0**place
    return angle


_NUMBER = re.compile(r"[+-]?(?=\d|\.\d)\d*(?:\.\d*)?(?:[Ee][+-]?\d{1,3})?")


def spoken_numbers(text: str) -> Values:
    """The numbers in a text, for phones that write degrees as text."""
    return [float(match) for match in _NUMBER.findall(text)][:3]


def _coordinate(values: Values) -> str:
    angle = degrees(values)
    if angle is None:
        return ""
    hundredths = round(abs(angle) * 360_000)
    minutes, hundredths = divmod(hundredths, 6000)
    return f"{minutes // 60} deg {minutes % 60}' {hundredths / 100:.2f}\""


_INCHES = _words("None", "inches", "cm", "mm", "um", start=1)
_LEVEL = _words("Normal", "Low", "High")

FLASH = {
    0: "No Flash", 1: "Fired", 5: "Fired, Return not detected", 7: "Fired, Return detected",
    8: "On, Did not fire", 9: "On, Fired", 13: "On, Return not detected", 15: "On, Return detected",
    16: "Off, Did not fire", 20: "Off, Did not fire, Return not detected",
    24: "Auto, Did not fire", 25: "Auto, Fired", 29: "Auto, Fired, Return not detected",
    31: "Auto, Fired, Return detected", 32: "No flash function", 48: "Off, No flash function",
    65: "Fired, Red-eye reduction", 69: "Fired, Red-eye reduction, Return not detected",
    71: "Fired, Red-eye reduction, Return detected", 73: "On, Red-eye reduction",
    77: "On, Red-eye reduction, Return not detected", 79: "On, Red-eye reduction, Return detected",
    80: "Off, Red-eye reduction", 88: "Auto, Did not fire, Red-eye reduction",
    89: "Auto, Fired, Red-eye reduction", 93: "Auto, Fired, Red-eye reduction, Return not detected",
    95: "Auto, Fired, Red-eye reduction, Return detected",
}  # fmt: skip

SHOW: Mapping[str, Show] = {
    "Orientation": _words(
        "Horizontal (normal)",
        "Mirror horizontal",
        "Rotate 180",
        "Mirror vertical",
        "Mirror horizontal and rotate 270 CW",
        "Rotate 90 CW",
        "Mirror horizontal and rotate 90 CW",
        "Rotate 270 CW",
        start=1,
    ),
    "ResolutionUnit": _INCHES,
    "FocalPlaneResolutionUnit": _INCHES,
    "YCbCrPositioning": _words("Centered", "Co-sited", start=1),
    "ExposureTime": _measured(_seconds),
    "ShutterSpeedValue": _measured(lambda value: _power_of_two(-value, _seconds)),
    "ApertureValue": _measured(lambda value: _power_of_two(value / 2, lambda f: f"{f:.1f}")),
    "MaxApertureValue": _measured(lambda value: _power_of_two(value / 2, lambda f: f"{f:.1f}")),
    "FNumber": _measured(_f_number),
    "ExposureCompensation": _measured(_fraction),
    "FocalLength": _measured(lambda value: f"{value:.1f} mm"),
    "FocalLengthIn35mmFormat": _unit("mm"),
    "SubjectDistance": _unit("m"),
    "AmbientTemperature": _unit("C"),
    "LensInfo": _lens,
    "ISO": lambda values: ", ".join(map(str, values)),
    "ExposureProgram": _words(
        "Not Defined",
        "Manual",
        "Program AE",
        "Aperture-priority AE",
        "Shutter speed priority AE",
        "Creative (Slow speed)",
        "Action (High speed)",
        "Portrait",
        "Landscape",
        "Bulb",
    ),
    "SensitivityType": _words(
        "Unknown",
        "Standard Output Sensitivity",
        "Recommended Exposure Index",
        "ISO Speed",
        "Standard Output Sensitivity and Recommended Exposure Index",
        "Standard Output Sensitivity and ISO Speed",
        "Recommended Exposure Index and ISO Speed",
        "Standard Output Sensitivity, Recommended Exposure Index and ISO Speed",
    ),
    "MeteringMode": _words(
        "Unknown",
        "Average",
        "Center-weighted average",
        "Spot",
        "Multi-spot",
        "Multi-segment",
        "Partial",
        others={255: "Other"},
    ),
    "LightSource": _words(
        "Unknown",
        "Daylight",
        "Fluorescent",
        "Tungsten (Incandescent)",
        "Flash",
        others={
            9: "Fine Weather",
            10: "Cloudy",
            11: "Shade",
            12: "Daylight Fluorescent",
            13: "Day White Fluorescent",
            14: "Cool White Fluorescent",
            15: "White Fluorescent",
            16: "Warm White Fluorescent",
            17: "Standard Light A",
            18: "Standard Light B",
            19: "Standard Light C",
            20: "D55",
            21: "D65",
            22: "D75",
            23: "D50",
            24: "ISO Studio Tungsten",
            255: "Other",
        },
    ),
    "Flash": _words(others=FLASH),
    "ColorSpace": _words(
        others={
            1: "sRGB",
            2: "Adobe RGB",
            65533: "Wide Gamut RGB",
            65534: "ICC Profile",
            65535: "Uncalibrated",
        }
    ),
    "SensingMethod": _words(
        "Not defined",
        "One-chip color area",
        "Two-chip color area",
        "Three-chip color area",
        "Color sequential area",
        start=1,
        others={7: "Trilinear", 8: "Color sequential linear"},
    ),
    "FileSource": _words("Film Scanner", "Reflection Print Scanner", "Digital Camera", start=1),
    "SceneType": _words("Directly photographed", start=1),
    "CustomRendered": _words(
        "Normal",
        "Custom",
        "HDR (no original saved)",
        "HDR (original saved)",
        "Original (for HDR)",
        others={6: "Panorama", 7: "Portrait HDR", 8: "Portrait"},
    ),
    "ExposureMode": _words("Auto", "Manual", "Auto bracket"),
    "WhiteBalance": _words("Auto", "Manual"),
    "SceneCaptureType": _words("Standard", "Landscape", "Portrait", "Night", "Other"),
    "GainControl": _words("None", "Low gain up", "High gain up", "Low gain down", "High gain down"),
    "Contrast": _LEVEL,
    "Saturation": _LEVEL,
    "Sharpness": _words("Normal", "Soft", "Hard"),
    "SubjectDistanceRange": _words("Unknown", "Macro", "Close", "Distant"),
    "CompositeImage": _words(
        "Unknown",
        "Not a Composite Image",
        "General Composite Image",
        "Composite Image Captured While Shooting",
    ),
    "ComponentsConfiguration": _components,
    "CFAPattern": _mosaic,
    "GPSVersionID": lambda values: ".".join(map(str, values)),
    "GPSLatitude": _coordinate,
    "GPSLongitude": _coordinate,
    "GPSDestLatitude": _coordinate,
    "GPSDestLongitude": _coordinate,
    "GPSAltitudeRef": _words("Above Sea Level", "Below Sea Level"),
    "GPSAltitude": _unit("m"),
    "GPSHPositioningError": _unit("m"),
    "GPSTimeStamp": _clock,
    "GPSDifferential": _words("No Correction", "Differential Corrected"),
}
"""How the numbers of a tag are told; `plain` for all others."""

_DIRECTION = {"M": "Magnetic North", "T": "True North"}
LETTERS: Mapping[str, Mapping[str, str]] = {
    "InteropIndex": {
        "R03": "R03 - DCF option file (Adobe RGB)",
        "R98": "R98 - DCF basic file (sRGB)",
        "THM": "THM - DCF thumbnail file",
    },
    "GPSLatitudeRef": {"N": "North", "S": "South"},
    "GPSLongitudeRef": {"E": "East", "W": "West"},
    "GPSDestLatitudeRef": {"N": "North", "S": "South"},
    "GPSDestLongitudeRef": {"E": "East", "W": "West"},
    "GPSStatus": {"A": "Measurement Active", "V": "Measurement Void"},
    "GPSMeasureMode": {"2": "2-Dimensional Measurement", "3": "3-Dimensional Measurement"},
    "GPSSpeedRef": {"K": "km/h", "M": "mph", "N": "knots"},
    "GPSTrackRef": _DIRECTION,
    "GPSImgDirectionRef": _DIRECTION,
    "GPSDestBearingRef": _DIRECTION,
    "GPSDestDistanceRef": {"K": "Kilometers", "M": "Miles", "N": "Nautical Miles"},
}
"""How the letters of a text tag are told."""

CODED_TEXT = {"UserComment", "GPSProcessingMethod", "GPSAreaInformation"}
"""Tags whose text is preceded by eight bytes that name its character set."""
PLAIN_UNDEFINED = {"ExifVersion", "FlashpixVersion", "InteropVersion"}
"""Tags of undefined type that hold digits as text."""
BYTE_NUMBERS = {"FileSource", "SceneType", "ComponentsConfiguration", "CFAPattern"}
"""Tags of undefined type that hold numbers of one byte."""
WINDOWS_TEXT = {"XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"}
"""Tags of bytes that hold UTF-16, little end first."""

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 0x8769, 0x8825, 0xA005
MAKE, MODEL, ORIENTATION = 0x10F, 0x110, 0x112

IMAGE: Mapping[int, str] = {
    0x0B: "ProcessingSoftware", 0x10D: "DocumentName", 0x10E: "ImageDescription", 0x10F: "Make",
    0x110: "Model", 0x112: "Orientation", 0x11A: "XResolution", 0x11B: "YResolution",
    0x11D: "PageName", 0x128: "ResolutionUnit", 0x129: "PageNumber", 0x131: "Software",
    0x132: "ModifyDate", 0x13B: "Artist", 0x13C: "HostComputer", 0x13E: "WhitePoint",
    0x13F: "PrimaryChromaticities", 0x211: "YCbCrCoefficients", 0x213: "YCbCrPositioning",
    0x214: "ReferenceBlackWhite", 0x4746: "Rating", 0x4749: "RatingPercent", 0x8298: "Copyright",
    0x9C9B: "XPTitle", 0x9C9C: "XPComment", 0x9C9D: "XPAuthor", 0x9C9E: "XPKeywords",
    0x9C9F: "XPSubject",
}  # fmt: skip
"""Tags of the first directory."""

PHOTO: Mapping[int, str] = {
    0x829A: "ExposureTime", 0x829D: "FNumber", 0x8822: "ExposureProgram",
    0x8824: "SpectralSensitivity", 0x8827: "ISO", 0x882A: "TimeZoneOffset",
    0x882B: "SelfTimerMode", 0x8830: "SensitivityType", 0x8831: "StandardOutputSensitivity",
    0x8832: "RecommendedExposureIndex", 0x8833: "ISOSpeed", 0x8834: "ISOSpeedLatitudeyyy",
    0x8835: "ISOSpeedLatitudezzz", 0x9000: "ExifVersion", 0x9003: "DateTimeOriginal",
    0x9004: "CreateDate", 0x9010: "OffsetTime", 0x9011: "OffsetTimeOriginal",
    0x9012: "OffsetTimeDigitized", 0x9101: "ComponentsConfiguration",
    0x9102: "CompressedBitsPerPixel", 0x9201: "ShutterSpeedValue", 0x9202: "ApertureValue",
    0x9203: "BrightnessValue", 0x9204: "ExposureCompensation", 0x9205: "MaxApertureValue",
    0x9206: "SubjectDistance", 0x9207: "MeteringMode", 0x9208: "LightSource", 0x9209: "Flash",
    0x920A: "FocalLength", 0x9211: "ImageNumber", 0x9212: "SecurityClassification",
    0x9213: "ImageHistory", 0x9214: "SubjectArea", 0x9286: "UserComment", 0x9290: "SubSecTime",
    0x9291: "SubSecTimeOriginal", 0x9292: "SubSecTimeDigitized", 0x9400: "AmbientTemperature",
    0x9401: "Humidity", 0x9402: "Pressure", 0x9403: "WaterDepth", 0x9404: "Acceleration",
    0x9405: "CameraElevationAngle", 0xA000: "FlashpixVersion", 0xA001: "ColorSpace",
    0xA002: "ExifImageWidth", 0xA003: "ExifImageHeight", 0xA004: "RelatedSoundFile",
    0xA20B: "FlashEnergy", 0xA20E: "FocalPlaneXResolution", 0xA20F: "FocalPlaneYResolution",
    0xA210: "FocalPlaneResolutionUnit", 0xA214: "SubjectLocation", 0xA215: "ExposureIndex",
    0xA217: "SensingMethod", 0xA300: "FileSource", 0xA301: "SceneType", 0xA302: "CFAPattern",
    0xA401: "CustomRendered", 0xA402: "ExposureMode", 0xA403: "WhiteBalance",
    0xA404: "DigitalZoomRatio", 0xA405: "FocalLengthIn35mmFormat", 0xA406: "SceneCaptureType",
    0xA407: "GainControl", 0xA408: "Contrast", 0xA409: "Saturation", 0xA40A: "Sharpness",
    0xA40C: "SubjectDistanceRange", 0xA420: "ImageUniqueID", 0xA430: "OwnerName",
    0xA431: "SerialNumber", 0xA432: "LensInfo", 0xA433: "LensMake", 0xA434: "LensModel",
    0xA435: "LensSerialNumber", 0xA436: "ImageTitle", 0xA437: "Photographer",
    0xA438: "ImageEditor", 0xA439: "CameraFirmware", 0xA43A: "RAWDevelopingSoftware",
    0xA43B: "ImageEditingSoftware", 0xA43C: "MetadataEditingSoftware", 0xA460: "CompositeImage",
    0xA461: "CompositeImageCount", 0xA500: "Gamma",
}  # fmt: skip
"""Tags of the EXIF directory."""

GPS: Mapping[int, str] = dict(
    enumerate(
        (
            "GPSVersionID", "GPSLatitudeRef", "GPSLatitude", "GPSLongitudeRef", "GPSLongitude",
            "GPSAltitudeRef", "GPSAltitude", "GPSTimeStamp", "GPSSatellites", "GPSStatus",
            "GPSMeasureMode", "GPSDOP", "GPSSpeedRef", "GPSSpeed", "GPSTrackRef", "GPSTrack",
            "GPSImgDirectionRef", "GPSImgDirection", "GPSMapDatum", "GPSDestLatitudeRef",
            "GPSDestLatitude", "GPSDestLongitudeRef", "GPSDestLongitude", "GPSDestBearingRef",
            "GPSDestBearing", "GPSDestDistanceRef", "GPSDestDistance", "GPSProcessingMethod",
            "GPSAreaInformation", "GPSDateStamp", "GPSDifferential", "GPSHPositioningError",
        )
    )
)  # fmt: skip
"""Tags of the GPS directory."""

INTEROP: Mapping[int, str] = {
    0x1: "InteropIndex", 0x2: "InteropVersion", 0x1000: "RelatedImageFileFormat",
    0x1001: "RelatedImageWidth", 0x1002: "RelatedImageHeight",
}  # fmt: skip
"""Tags of the interoperability directory."""
