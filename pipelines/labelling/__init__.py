"""Questions for people: what they are asked, the page and its server, what they have answered, other tools' files."""
