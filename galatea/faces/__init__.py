"""Faces in photos: detection, landmarks, person matte, identity embedding, portrait alignment."""
