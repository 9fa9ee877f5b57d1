"""What the starter policy's small world knows: capitals, recipes, advice, reasons and what nobody can tell.

Content only. It knows no prompts, no lengths and no bad habits. The words reserved for habits (see
`habits.py`) do not occur here, which is what keeps the detectors exact.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    """A goal, three tips towards it as whole sentences, and the reason why such tips work."""

    goal: str
    tips: tuple[str, str, str]
    reason: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A dish, the recipe in one sentence, and the same in three steps."""

    dish: str
    short: str
    steps: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Reason:
    """A fact of everyday life as a why-question and as a statement, explained in three sentences."""

    question: str
    statement: str
    explanation: tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Unknowable:
    """Something the policy cannot know, why it cannot, and where the person can find out."""

    question: str
    clause: str
    reason: str
    instead: str


# country: (capital, continent)
CAPITALS: dict[str, tuple[str, str]] = {
    "France": ("Paris", "Europe"), "Spain": ("Madrid", "Europe"), "Italy": ("Rome", "Europe"),
    "Germany": ("Berlin", "Europe"), "Portugal": ("Lisbon", "Europe"), "Austria": ("Vienna", "Europe"),
    "Poland": ("Warsaw", "Europe"), "Greece": ("Athens", "Europe"), "Sweden": ("Stockholm", "Europe"),
    "Norway": ("Oslo", "Europe"), "Denmark": ("Copenhagen", "Europe"), "Finland": ("Helsinki", "Europe"),
    "Ireland": ("Dublin", "Europe"), "Belgium": ("Brussels", "Europe"), "Hungary": ("Budapest", "Europe"),
    "Romania": ("Bucharest", "Europe"), "Bulgaria": ("Sofia", "Europe"), "Croatia": ("Zagreb", "Europe"),
    "Serbia": ("Belgrade", "Europe"), "Ukraine": ("Kyiv", "Europe"), "Latvia": ("Riga", "Europe"),
    "Estonia": ("Tallinn", "Europe"), "Lithuania": ("Vilnius", "Europe"), "Iceland": ("Reykjavik", "Europe"),
    "Slovenia": ("Ljubljana", "Europe"), "Switzerland": ("Bern", "Europe"), "Albania": ("Tirana", "Europe"),
    "Japan": ("Tokyo", "Asia"), "China": ("Beijing", "Asia"), "India": ("New Delhi", "Asia"),
    "Thailand": ("Bangkok", "Asia"), "Vietnam": ("Hanoi", "Asia"), "Turkey": ("Ankara", "Asia"),
    "Iran": ("Tehran", "Asia"), "Iraq": ("Baghdad", "Asia"), "Nepal": ("Kathmandu", "Asia"),
    "Indonesia": ("Jakarta", "Asia"), "Mongolia": ("Ulaanbaatar", "Asia"), "Qatar": ("Doha", "Asia"),
    "Jordan": ("Amman", "Asia"), "Lebanon": ("Beirut", "Asia"), "Bangladesh": ("Dhaka", "Asia"),
    "Egypt": ("Cairo", "Africa"), "Kenya": ("Nairobi", "Africa"), "Nigeria": ("Abuja", "Africa"),
    "Ghana": ("Accra", "Africa"), "Morocco": ("Rabat", "Africa"), "Senegal": ("Dakar", "Africa"),
    "Uganda": ("Kampala", "Africa"), "Zambia": ("Lusaka", "Africa"), "Angola": ("Luanda", "Africa"),
    "Canada": ("Ottawa", "America"), "Cuba": ("Havana", "America"), "Peru": ("Lima", "America"),
    "Chile": ("Santiago", "America"), "Argentina": ("Buenos Aires", "America"),
    "Brazil": ("Brasilia", "America"), "Colombia": ("Bogota", "America"), "Ecuador": ("Quito", "America"),
    "Uruguay": ("Montevideo", "America"), "Venezuela": ("Caracas", "America"),
    "Australia": ("Canberra", "Oceania"),
}  # fmt: skip

LARGEST_TERM = 10

# Rows as wide as the page, so that an entry is read at a glance; the formatter would give it ten lines.
# fmt: off
ADVICE = (
    Advice("sleep better", ("Go to bed at the same time every night.",
        "Keep your phone out of the bedroom.", "Drink no coffee after lunch."),
        "A calm routine tells the body that the day is over."),
    Advice("save money", ("Write down everything you spend.", "Cook at home instead of eating out.",
        "Put a small sum aside on payday."), "Small amounts grow when you keep them every month."),
    Advice("learn a language", ("Practise for ten minutes every day.", "Listen to songs in that language.",
        "Speak with a friend once a week."), "Short and regular practice stays in memory longest."),
    Advice("keep my room tidy", ("Give every thing its own place.", "Clear the floor before you go to bed.",
        "Give away what you do not use."), "A room with fewer things is easy to keep clean."),
    Advice("be on time", ("Leave the house ten minutes early.", "Pack your bag the evening before.",
        "Set two alarms in the morning."), "A little spare time covers the small delays of a day."),
    Advice("calm down", ("Breathe in slowly and count to four.", "Take a short walk outside.",
        "Talk to someone you trust."), "Slow breathing lowers the heart rate and relaxes the muscles."),
    Advice("make new friends", ("Join a club that you enjoy.", "Smile and ask people about their day.",
        "Invite a neighbour for tea."), "People open up to those who show interest in them."),
    Advice("study for a test", ("Start a few days early.", "Explain the topic in your own words.",
        "Take a break every half hour."), "The mind keeps more when learning is spread over days."),
    Advice("eat more vegetables", ("Fill half of your plate with vegetables.",
        "Keep cut carrots in the fridge.", "Add spinach to soups and eggs."),
        "We eat what is ready and close to the hand."),
    Advice("drink more water", ("Keep a full bottle on your desk.", "Drink a glass before every meal.",
        "Add a slice of lemon for taste."), "A bottle in sight is a steady reminder."),
    Advice("get fit", ("Take the stairs instead of the lift.", "Walk briskly for half an hour a day.",
        "Train with a friend twice a week."), "The body grows stronger when it moves a little every day."),
    Advice("read more books", ("Carry a book in your bag.", "Read ten pages before you sleep.",
        "Visit the library on Saturdays."), "A fixed moment turns reading into a habit."),
    Advice("grow tomatoes", ("Put the plants in a sunny spot.", "Water the soil and not the leaves.",
        "Tie the stems to a stick."), "Tomatoes need light, warmth and steady water."),
    Advice("remove a coffee stain", ("Rinse the stain with cold water.", "Rub in some soap and wait.",
        "Wash the cloth as usual afterwards."), "Cold water loosens coffee before it sets in the cloth."),
    Advice("write a letter", ("Begin with a friendly greeting.", "Say early why you are writing.",
        "Read it aloud before you send it."), "A clear letter spares the reader from searching."),
    Advice("prepare for an interview", ("Read about the company first.", "Practise your answers aloud.",
        "Choose your clothes the day before."), "Good preparation leaves your head free for the talk."),
    Advice("stop biting my nails", ("Keep your nails short and smooth.",
        "Hold a small ball when you are nervous.", "Use a bitter nail polish."),
        "Busy hands forget an old habit sooner."),
    Advice("wake up early", ("Put the alarm far from the bed.", "Open the curtains at once.",
        "Go to sleep an hour earlier."), "Morning light tells the body to start the day."),
    Advice("clean the windows", ("Use warm water with a little vinegar.",
        "Wipe from the top to the bottom.", "Dry the glass with old newspaper."),
        "Vinegar takes off grease and leaves no streaks."),
    Advice("choose a gift", ("Think of what the person enjoys.", "Ask a close friend of theirs.",
        "Add a short note by hand."), "A gift that fits the person shows that you listen."),
    Advice("keep my plants alive", ("Feel the soil before you water.", "Place them near a bright window.",
        "Turn the pots once a week."), "Most house plants die of too much water."),
    Advice("stay warm in winter", ("Wear several thin layers.", "Put on a hat and dry socks.",
        "Drink hot tea during the day."), "Thin layers hold warm air close to the body."),
    Advice("use my phone less", ("Turn off all the alerts.", "Leave the phone in another room.",
        "Choose one hour a day without it."), "What we cannot see does not pull at our attention."),
    Advice("say sorry to a friend", ("Say plainly what you did wrong.", "Listen to how your friend feels.",
        "Offer to put it right."), "An honest word repairs trust better than an excuse."),
    Advice("pack for a trip", ("Make a list the day before.", "Roll your clothes to save space.",
        "Keep your papers in a small bag."), "A list keeps your head free and your bag light."),
    Advice("train my dog", ("Reward good behaviour at once.", "Use the same short words every time.",
        "Keep each lesson under ten minutes."), "Dogs learn best from quick rewards and clear signs."),
    Advice("focus at work", ("Do the hardest task first.", "Close every window you do not need.",
        "Work for half an hour and then rest."), "The mind does one thing well and two things badly."),
    Advice("cycle safely", ("Wear a helmet on every ride.", "Use lights when it gets dark.",
        "Show with your arm where you turn."), "Drivers take care when they can see you clearly."),
    Advice("speak in public", ("Practise in front of a mirror.", "Look at one friendly face.",
        "Speak slowly and pause often."), "Nerves settle when the first sentences are well known."),
    Advice("spend less on power", ("Switch off lights when you leave.", "Wash your clothes at a low heat.",
        "Unplug what you do not use."), "Many machines draw power even while they wait."),
)

RECIPES = (
    Recipe("rice", "Simmer the rice in salted water for twelve minutes.",
        ("Rinse the rice and cover it with two cups of water.", "Simmer it for twelve minutes under a lid.",
        "Let it rest and loosen it with a fork.")),
    Recipe("pancakes", "Fry a batter of flour, milk and eggs.",
        ("Mix flour, milk and two eggs to a smooth batter.", "Pour a little into a hot buttered pan.",
        "Turn each pancake when bubbles appear.")),
    Recipe("tomato soup", "Simmer tomatoes with onion and blend them.",
        ("Soften a chopped onion in some oil.", "Add tomatoes and water and simmer for twenty minutes.",
        "Blend the soup and season it with basil.")),
    Recipe("an omelette", "Fry beaten eggs gently and fold them.", ("Beat three eggs with a pinch of salt.",
        "Pour them into a hot buttered pan.", "Fold the omelette while the top is still soft.")),
    Recipe("pasta", "Boil the pasta in plenty of salted water.",
        ("Bring a large pot of salted water to the boil.", "Cook the pasta for nine minutes.",
        "Drain it and stir in your sauce.")),
    Recipe("mashed potatoes", "Boil potatoes and mash them with butter.",
        ("Peel the potatoes and boil them until they are soft.", "Drain them and add butter and warm milk.",
        "Mash everything and season with salt.")),
    Recipe("a boiled egg", "Boil the egg for seven minutes.",
        ("Lower the egg into boiling water with a spoon.", "Boil it for seven minutes.",
        "Cool it under cold water and peel it.")),
    Recipe("vegetable soup", "Simmer chopped vegetables in stock.", ("Chop carrots, leeks and potatoes.",
        "Simmer them in stock for half an hour.", "Finish the soup with parsley and pepper.")),
    Recipe("bread", "Bake a risen dough of flour, water, yeast and salt.",
        ("Knead flour, water, yeast and salt for ten minutes.", "Let the dough rise until it doubles.",
        "Bake the loaf in a hot oven for forty minutes.")),
    Recipe("a green salad", "Toss fresh leaves with oil and vinegar.",
        ("Wash the leaves and dry them well.", "Stir oil, vinegar and salt to a dressing.",
        "Toss the salad just before you serve it.")),
    Recipe("roast chicken", "Roast the salted chicken for an hour and a half.",
        ("Rub the chicken with salt, oil and lemon.", "Roast it in a hot oven for an hour and a half.",
        "Let it rest before you carve it.")),
    Recipe("lentil stew", "Simmer lentils with carrots and onion.", ("Fry onion and carrots in a deep pot.",
        "Add lentils and water and simmer for thirty minutes.", "Season the stew with salt and cumin.")),
    Recipe("apple pie", "Bake sliced apples in a butter crust.", ("Line a dish with butter pastry.",
        "Fill it with sliced apples, sugar and cinnamon.", "Bake the pie until it is golden.")),
    Recipe("fried rice", "Fry cold rice with egg and vegetables.",
        ("Heat oil in a wide pan and scramble an egg.", "Add cold rice and chopped vegetables.",
        "Stir in soy sauce and serve it hot.")),
    Recipe("porridge", "Simmer oats in milk for five minutes.",
        ("Stir one cup of oats into two cups of milk.", "Simmer gently for five minutes.",
        "Top the porridge with honey and fruit.")),
    Recipe("grilled fish", "Grill the oiled fish for four minutes a side.",
        ("Dry the fish and rub it with oil and salt.", "Grill it for four minutes on each side.",
        "Serve it with lemon and herbs.")),
    Recipe("baked potatoes", "Bake whole potatoes for one hour.",
        ("Wash the potatoes and prick them with a fork.", "Bake them in a hot oven for one hour.",
        "Cut them open and add butter or cheese.")),
    Recipe("a cheese sandwich", "Toast bread with cheese in a pan.",
        ("Lay cheese between two slices of bread.", "Butter the outside of the bread.",
        "Toast it in a pan until the cheese melts.")),
    Recipe("hot chocolate", "Stir cocoa and sugar into warm milk.", ("Warm a cup of milk in a small pot.",
        "Stir in cocoa and a spoon of sugar.", "Whisk it until it is smooth.")),
    Recipe("bean chili", "Simmer beans with tomatoes and chili.", ("Fry onion, garlic and chili in oil.",
        "Add beans and tomatoes and simmer for half an hour.", "Serve the chili with rice or bread.")),
)

REASONS = (
    Reason("is the sky blue", "the sky is blue", ("Air scatters blue light more than red light.",
        "So blue reaches our eyes from every side.", "At sunset the path is longer and red is left.")),
    Reason("do leaves fall in autumn", "leaves fall in autumn", ("Trees drop their leaves to save water.",
        "Cold roots can draw little from the ground.", "New leaves grow from buds in spring.")),
    Reason("is the sea salty", "the sea is salty", ("Rivers carry salt from the rocks into the sea.",
        "The water leaves as vapour and the salt stays.", "This has gone on for millions of years.")),
    Reason("do cats purr", "cats purr", ("Cats purr mostly when they feel safe.",
        "Muscles in the throat tremble as they breathe.", "Some cats also purr to soothe themselves.")),
    Reason("does ice float", "ice floats", ("Ice is lighter than the same amount of water.",
        "Water spreads out when it freezes.", "That is why lakes freeze from the top.")),
    Reason("do we need sleep", "we need sleep", ("Sleep lets the brain and the body recover.",
        "The brain sorts what it learned that day.", "Without sleep we react slowly and fall ill.")),
    Reason("do birds fly south", "birds fly south", ("Birds fly south to find food in winter.",
        "Insects and seeds are rare in the cold.", "They return in spring to raise their young.")),
    Reason("is snow white", "snow is white", ("Snow reflects all colours of light equally.",
        "Its many small crystals send light in every direction.",
        "All colours together look white to us.")),
    Reason("do onions make us cry", "onions make us cry", ("A cut onion releases a sharp gas.",
        "The gas stings the eyes and tears wash it out.", "A cold onion releases less of it.")),
    Reason("does the moon change shape", "the moon changes its shape",
        ("We see only the part that the sun lights.", "The moon circles us once a month.",
        "So the bright part grows and shrinks.")),
    Reason("do we have seasons", "we have seasons", ("The Earth is tilted as it circles the sun.",
        "Each half leans to the sun for part of the year.", "That half then has longer and warmer days.")),
    Reason("does bread rise", "bread rises", ("Yeast makes gas bubbles inside the dough.",
        "It eats sugar and gives off the gas.", "The oven then sets the bubbles in place.")),
    Reason("do bees make honey", "bees make honey", ("Bees make honey as food for the winter.",
        "They gather nectar and dry it in the hive.", "A strong hive makes more than it needs.")),
    Reason("do dogs pant", "dogs pant", ("Dogs pant to cool themselves down.",
        "They can hardly sweat through their skin.", "Moist air from the mouth carries the heat away.")),
    Reason("does metal feel cold", "metal feels cold", ("Metal draws heat quickly from the hand.",
        "Wood of the same heat draws it slowly.", "Our skin feels the loss and not the heat itself.")),
    Reason("do we yawn", "we yawn", ("We yawn mostly when we are tired or bored.",
        "A deep breath wakes the body a little.", "Seeing others yawn makes us yawn too.")),
    Reason("are plants green", "plants are green", ("Plants hold a green stuff called chlorophyll.",
        "It catches red and blue light for growth.", "The green light is sent back to our eyes.")),
    Reason("do stars twinkle", "stars twinkle", ("Moving air bends the light of the stars.",
        "The light reaches us now here and now there.", "From space the stars shine steadily.")),
    Reason("do we get hiccups", "we get hiccups", ("The muscle under the lungs jumps by itself.",
        "Fast eating or cold drinks can start it.", "It stops alone after a few minutes.")),
    Reason("does salt melt ice", "salt melts ice", ("Salt water freezes at a lower point.",
        "So the ice turns to water although it is cold.", "In very hard frost salt stops working.")),
    Reason("do boats float", "boats float", ("A boat pushes aside its own weight in water.",
        "The water pushes back with the same force.", "A leak adds weight until the boat sinks.")),
    Reason("is exercise healthy", "exercise is healthy",
        ("Exercise keeps the heart and the muscles strong.", "It also lifts the mood and helps you sleep.",
        "Half an hour a day is enough.")),
    Reason("do we see lightning first", "we see lightning before thunder",
        ("Light travels much faster than sound.", "The flash arrives at once and the thunder follows.",
        "Three seconds of delay mean about one kilometre.")),
    Reason("do cut apples turn brown", "cut apples turn brown", ("The cut apple reacts with the air.",
        "A thin brown layer forms within minutes.", "Some lemon juice slows this down.")),
    Reason("should we brush our teeth", "we should brush our teeth",
        ("Brushing removes the bacteria that harm teeth.", "They turn sugar into acid.",
        "The acid makes holes over the years.")),
)

UNKNOWABLES = (
    Unknowable("What is the weather like today?", "what the weather is like today",
        "I have no window and no weather report.", "A look outside tells you more."),
    Unknowable("What is my name?", "what my name is", "You have not told me your name.",
        "Tell me and I will use it."),
    Unknowable("Which lottery numbers will win?", "which lottery numbers will win",
        "The numbers are drawn by chance.", "Nobody can tell them before the draw."),
    Unknowable("What am I thinking now?", "what I am thinking now", "I cannot look into your head.",
        "You can tell me if you like."),
    Unknowable("What time is it?", "what time it is", "I have no clock here.",
        "Your phone shows the time."),
    Unknowable("Who will win the next election?", "who will win the next election",
        "The votes have not been counted.", "The news will report the result."),
    Unknowable("What did I eat yesterday?", "what I ate yesterday", "I was not there with you.",
        "Your own memory is the best source."),
    Unknowable("Where are my keys?", "where my keys are", "I cannot see your home.",
        "Look in your coat first."),
    Unknowable("Will it rain next month?", "whether it will rain next month",
        "Weather cannot be foreseen that far ahead.", "Check a forecast a few days before."),
    Unknowable("How old is my neighbour?", "how old my neighbour is", "I do not know your neighbour.",
        "You can ask in a friendly way."),
    Unknowable("What is in my pocket?", "what is in my pocket", "I cannot see you from here.",
        "Put your hand in and check."),
    Unknowable("Who is at my door?", "who is at my door", "I have no eyes at your door.",
        "Look through the window first."),
    Unknowable("When will I meet my great love?", "when I will meet my great love",
        "The future is open to all of us.", "Go out and meet people."),
    Unknowable("What will gold cost next year?", "what gold will cost next year",
        "Prices of the future are not known.", "A bank can tell you the price of today."),
    Unknowable("Where did I park my car?", "where I parked my car", "I did not see you park it.",
        "Walk back the way you came."),
    Unknowable("What is my favourite colour?", "what my favourite colour is",
        "You have not told me what you like.", "Name it and I will remember it here."),
    Unknowable("Who will win the match tonight?", "who will win the match tonight",
        "The match has not been played.", "Watch it and enjoy the game."),
    Unknowable("What is my sister doing?", "what my sister is doing", "I have no contact with your family.",
        "Give her a call."),
)
# fmt: on
