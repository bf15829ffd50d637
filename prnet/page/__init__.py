"""The page that makes faces of photos: what it shows, and its layout."""
