"""Who felt what, when: the emotions of a long recording, segment by segment."""
