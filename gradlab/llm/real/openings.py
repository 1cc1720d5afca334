"""Openings of sentences, written for this library; those to train on and those held out have different subjects."""

from __future__ import annotations

ENDINGS = ("was", "felt")  # each subject makes one opening with each

TRAIN = (
    "The service at the restaurant", "My first day at the new school", "The garden after the storm",
    "The film last night", "Her letter from home", "The hotel near the station", "The soup that he cooked",
    "Our walk along the river", "The train to the coast", "His speech at the wedding", "The new neighbour's visit",
    "The concert in the park", "My talk with the doctor", "The old house on the hill", "Dinner with her parents",
    "The view from the tower", "The long wait at the airport", "The last page of the book",
    "Our trip to the mountains", "The music at the party", "The phone call this morning", "Winter in the village",
    "The exam on Friday", "The dog's first night with us", "Her answer to my question", "The market on Sunday",
    "The drive through the desert", "My brother's new job", "The bread from the corner shop", "The end of the match",
    "The hospital at night", "Our meeting with the manager", "The child's drawing", "The flight across the ocean",
    "His apology", "The tea in the blue pot", "The boat on the lake", "My grandmother's kitchen", "The noise upstairs",
    "The lesson about the stars", "Our first dance", "The news from the front", "The coat in the window",
    "The museum on a rainy day", "Her smile at the door", "The camp in the forest", "The repair of my bicycle",
    "The silence after the song", "A morning without coffee", "The crowd in the square", "The teacher's advice",
    "The swim in the cold sea", "His room in the attic", "The play at the theatre", "The ride on the night bus",
    "The birthday cake", "Our argument about money", "The smell of the bakery", "The queue at the bank",
    "The farmer's summer", "The final interview", "My cat's return", "The path through the fog",
    "The gift from my uncle", "The library in autumn", "Their reply to the complaint", "The beach at sunset",
    "The visit to the dentist", "The first snow of the year", "The conversation on the stairs", "The guide's story",
    "The chair by the fire", "Our night in the tent", "The judge's decision", "The bridge in the wind",
    "The painter's last picture", "The road back from town", "The game with the children", "The taste of the medicine",
    "The factory in the morning", "My sister's plan", "The reading in the bookshop", "The harbour before dawn",
    "The work in the vineyard", "The test of the engine", "Lunch under the apple tree", "The neighbour's piano",
    "The search for the keys", "The welcome at the farm", "The storm at sea", "The joke at the meeting",
    "The choir in the church", "The climb to the top", "The empty classroom", "The soldier's return",
    "The cake at the station café", "The holiday by the lake", "The light in the studio", "The goodbye at the gate",
    "The evening with old friends",
)  # fmt: skip
HELD_OUT = (
    "The breakfast on the terrace", "My visit to the zoo", "The letter from the bank", "The party for her birthday",
    "The ferry to the island", "His laugh in the dark", "The lecture on history", "The kitten in the basket",
    "The taxi to the theatre", "Our week in the city", "The coach's last word", "The picnic by the pond",
    "The shop assistant's help", "The fall from the ladder", "The song on the radio", "The house of my childhood",
    "The rain on the tent", "Her work at the clinic", "The race on Saturday", "The quarrel in the office",
    "The pie from the oven", "The journey to the north", "The baby's first step", "The night at the border",
    "The mayor's promise", "The tour of the castle", "The answer from the court", "My evening at the opera",
    "The shoes from the market", "The farewell to the crew", "The horse in the stable", "The class in the garden",
)  # fmt: skip


def openings(subjects: tuple[str, ...]) -> list[str]:
    """Return the openings of these subjects, such as "The film last night was"."""
    return [f"{subject} {ending}" for subject in subjects for ending in ENDINGS]
