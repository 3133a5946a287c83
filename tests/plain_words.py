"""Words that were used in place of the usual ones, and that the project avoids."""

AVOIDED = (
    r"befell|mend(?:s|ed)?|luggage|told|manners|anew|the seed's|put aside|toolbox|laid end to end|goes on from|"
    r"is gone on with|of strangers|spoil(?:s|t|ed)?"
)
"""A regular expression, without word boundaries."""
