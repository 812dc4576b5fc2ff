from affekt.interval import Interval as Interval
from affekt.interval import Word as Word
