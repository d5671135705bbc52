"""What moves a portrait: drivers, motions, retargeted frames, and the video files at both ends."""
