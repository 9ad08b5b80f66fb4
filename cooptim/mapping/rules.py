"""What a transfer costs is convention: the options, and the named sets of two published tools.

| option | hardware (default) | zigzag | timeloop |
|---|---|---|---|
| first read of a partial sum | elided: there is nothing to read yet | charged | elided |
| words of a transfer | rounded up to the port's granule, each transfer | the same | summed, then rounded up once |
| halo of neighbouring input tiles | fetched again | fetched again | only the new part where a loop slides |
| input already at the MACs | not read again | not read again | read every cycle |
| tile of inputs | clipped to the unpadded input | clipped | not clipped |
| fewer outputs than the dilation | count the positions that their taps touch | and some between them | as hardware |

Sources: ZigZag, IEEE TC 2021 (zigzag-dse 3.9.1); Timeloop, ISPASS 2019 (v3.0.3).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rules:
    """One set of conventions; static, it changes the program.

    Attributes:
      charge_first_psum_read: the first visit of each output reads a partial sum that is not there yet.
      operand_stays: an input operand that does not change at the MACs is not read again.
      clip_inputs: tiles of inputs are clipped to the unpadded input.
      count_gaps: a dilated filter under fewer outputs than the dilation counts positions between its taps, too.
      exact_words: accesses are whole numbers of granules over the width, and half tiles fed round to even; without,
        both are taken in the order of ZigZag, whose float falls one short where width / granule is no power of two,
        and moves some halves.
      pack: 'transfer' rounds each transfer up to the port's granule, 'none' counts fractions of accesses.
    """

    name: str
    charge_first_psum_read: bool
    operand_stays: bool = True
    clip_inputs: bool = True
    pack: str = "transfer"
    count_gaps: bool = False
    exact_words: bool = True


HARDWARE = Rules("hardware", charge_first_psum_read=False)
ZIGZAG = Rules("zigzag", charge_first_psum_read=True, count_gaps=True, exact_words=False)
