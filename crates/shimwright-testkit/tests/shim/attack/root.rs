//! An image's root: its links, libraries and files, and what runs before its program does.
