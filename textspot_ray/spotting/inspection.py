"""A look at a bundle's graphs before a run begins: readable, and of the contract."""

from __future__ import annotations

from textspot_ray.spotting.composite.contract import check_encoder, decoder_ports, detector_ports
from textspot_ray.spotting.runtime import Runtime, Share
from textspot_ray.spotting.settings import Resolved


def check_graphs(resolved: Resolved) -> None:
    """Read the three graphs and check their inputs and outputs, without compiling them.

    Right checksums only tell that the files are those that ``bundle.yaml`` names. Workers check
    the contract as they load, but by then a run has planned, recorded its settings, and begun to
    read images.

    Raises:
        BundleError: A graph cannot be read or breaks the contract; one line with file and cause.
    """
    bundle, precision = resolved.bundle, resolved.precision
    runtime, files = Runtime(bundle, precision, Share()), bundle.model_files(precision)
    detector_ports(runtime.read("detector"), files.detector.xml.file)
    check_encoder(runtime.read("encoder"), files.encoder.xml.file)
    decoder = runtime.read("decoder")
    decoder_ports(decoder, files.decoder.xml.file, len(bundle.spec.alphabet) + 2)
