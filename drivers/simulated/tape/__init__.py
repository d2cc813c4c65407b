"""A tape library in software: changer, drives and cartridges that speak SCSI. How to use it: ``docs/tape-simulator.md``."""

from drivers.simulated.tape.elements import Element, ElementAddresses, ElementType
from drivers.simulated.tape.faults import Faults
from drivers.simulated.tape.generations import GENERATIONS, Generation
from drivers.simulated.tape.iscsi_target import IscsiServing, IscsiTarget, SharedUnits, serve_iscsi
from drivers.simulated.tape.library import DriveStatistics, LibraryStatistics, SimulatedLibrary
from drivers.simulated.tape.mechanics import NO_DELAY, Mechanics
from drivers.simulated.tape.medium import Cartridge
from drivers.simulated.tape.transport import SimulatedTransport

__all__ = [
    "GENERATIONS",
    "NO_DELAY",
    "Cartridge",
    "DriveStatistics",
    "Element",
    "ElementAddresses",
    "ElementType",
    "Faults",
    "Generation",
    "IscsiServing",
    "IscsiTarget",
    "LibraryStatistics",
    "Mechanics",
    "SharedUnits",
    "SimulatedLibrary",
    "SimulatedTransport",
    "serve_iscsi",
]
