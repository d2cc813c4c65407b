"""The domain of rbmedia: what there is, what may happen to it, and what follows.

Pure: no I/O, no clock, no randomness, no tasks. Time, random bytes and facts of the outside world are handed in, so that every
decision can be made again from the log alone.

====================  ==============================================================================
``vocabulary``        every word and number of the field, in one place
``entities``          the live state, one frozen struct per kind
``events``            every state change, as it stands in the log for ever
``commands``          what somebody wants; ``Order``, ``Context``, ``Reply``
``state``             the fold of the log, with ``indexes`` for what decisions look up
``evolve``            ``apply``: one event into the state, and how to take it back
``decide``            ``decide``: a command into events and a reply, or an error
``task``              the life of a task, as a table
``chain``             parents, dependants and what a deletion takes along
``dispatch``          ``next_steps``: what the dispatcher does next
``resource``          what a declaration of a resource is; ``resources`` are the declarations
``interval``          intervals and moments as the API writes them
``errors``            the one tree of errors
``messages``          what daemon and agents say to each other
``ports``             interfaces to the world that is not deterministic; ``drivers`` implements them
``archive``           the archive format: bytes in, bytes out
====================  ==============================================================================

Does not belong here: anything that opens, sleeps, sends or stores. The names below are the package's public face; modules
that need more of one noun import that noun's module.
"""

from rbcore.commands import Command, Context, Order, Reply
from rbcore.decide import Decision, decide
from rbcore.dispatch import Facts, next_steps
from rbcore.evolve import apply
from rbcore.resources import RESOURCES
from rbcore.state import State, Undo

__all__ = [
    "RESOURCES",
    "Command",
    "Context",
    "Decision",
    "Facts",
    "Order",
    "Reply",
    "State",
    "Undo",
    "apply",
    "decide",
    "next_steps",
]
