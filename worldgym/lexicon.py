"""English words for what happens on a table: a lexicon of synonyms, written by hand for this project.

Each entry has a meaning and the words and expressions for it, separated by "|"; longer expressions are read first. The
meanings are read by reader.py.
"""

VERBS = {
    "push": (
        "push|keep|shove|nudge|press|press against|press on|propel|bulldoze|prod|poke|jostle|budge|thrust|ram|shunt|"
        "sweep|bring|take|put|place|set|carry|transport|deliver|send|haul|drag|pull|tow|lug|convey|transfer|"
        "relocate|reposition|guide|steer|usher|herd|knock|bump|hit|tap|punt|kick|force|direct|position|plant|"
        "deposit|shuffle|give a push|give a shove|give a nudge|push on|push against|work|manoeuvre|maneuver|coax|"
        "ease|inch|roll|flick|pop|stick|leave|lead|join|unite|line up|dock|mate|tuck|wedge|jam|lodge|smack|smash|"
        "crash|butt|drop off"
    ),
    "move": "move|drive|slide|shift|scoot|scooch|glide|displace|get|run|swing|jog|edge",
    "go": (
        "go|head|travel|walk|navigate|proceed|advance|come|return|wander|stroll|step|hop|fly|race|rush|hurry|dash|"
        "cruise|sail|crawl|creep|make your way|make a beeline|find your way|go and stand|stand|park|park yourself|"
        "place yourself|position yourself|put yourself|take yourself|get yourself|bring yourself|move yourself|"
        "station yourself|move your body|move the pusher|bring the pusher|take the pusher|drive the pusher|"
        "slide the pusher|send the pusher|steer the pusher|guide the pusher|push the pusher|move the disc|"
        "move the disk|move the robot|drive the robot|bring the robot|send the robot|steer the robot|move the arm|"
        "steer yourself|drive yourself|withdraw|retreat|retire|settle|relocate yourself|be|start moving|keep moving|"
        "aim|aim for|make for|veer|back up|back away|climb|descend|ascend|sidestep|journey|trek|roam|hover|wait"
    ),
    "reach": (
        "reach|touch|approach|visit|contact|meet|make contact with|come into contact with|get in contact with|"
        "arrive at|arrive in|arrive|find|access|near|catch|tag|attain|get hold of|seek|seek out|track down|"
        "bump into|run into|come up to|walk up to|go up to|move up to|drive up to|go over to|get over to|occupy|"
        "target"
    ),
    "stay": (
        "stay still|stand still|keep still|hold still|remain still|sit still|be still|stay put|stay|remain|freeze|"
        "pause|wait|hold|hold on|hold your position|hold position|keep your position|maintain your position|"
        "maintain position|keep position|do nothing|do not move|do not do anything|do not go anywhere|not move|"
        "never move|rest|relax|idle|stop|stop moving|halt|stop there|stop it|come to a halt|come to a stop|"
        "stop right there|stop where you are|stay where you are|remain where you are|wait where you are|hold it|"
        "stand by|hang on|sit tight|take a break|stand where you are|rest where you are|make no move|no movement|"
        "no motion|be quiet|chill|keep calm|remain idle"
    ),
    "gather": (
        "gather|collect|cluster|group|assemble|bunch|bunch up|herd together|huddle|unite|reunite|pile up|pile|"
        "congregate|combine|merge|round up|consolidate|bundle|concentrate|draw together|join up"
    ),
    "separate": (
        "separate|split|split up|part|divide|disperse|spread|spread out|scatter|disjoin|detach|isolate|distance|"
        "pull apart|push apart|break up|space|space out|uncouple|tear apart|distribute|break apart|drive apart"
    ),
    "make": "make|let|have|cause|ensure|see that|see to it that|help|allow|arrange for|get it so that",
}
"""To push another thing, to go oneself, either of them ("move"), and the rest."""

COLOURS = {
    "red": (
        "red|crimson|scarlet|ruby|cherry|vermilion|vermillion|carmine|maroon|burgundy|cardinal|brick red|blood red|"
        "rose|fire engine red|tomato|garnet|wine|claret|oxblood|rust|rusty|reddish|ruddy|strawberry|bright red|"
        "dark red|deep red|pinkish red|tomato red|cherry red|ruby red|cardinal red"
    ),
    "blue": (
        "blue|navy|azure|cobalt|sapphire|cerulean|indigo|ultramarine|royal blue|sky blue|baby blue|navy blue|bluish|"
        "cornflower|midnight blue|denim|prussian blue|light blue|dark blue|deep blue|bright blue|steel blue|"
        "ocean blue|electric blue|cobalt blue|powder blue|lapis|sea blue"
    ),
    "green": (
        "green|emerald|lime|olive|jade|mint|forest green|lime green|dark green|light green|bright green|sea green|"
        "chartreuse|viridian|moss|pea green|greenish|bottle green|grass green|sage"
    ),
    "yellow": ("yellow|lemon|canary|golden|gold|mustard|amber|yellowish|sunny|blonde|saffron|bright yellow|dandelion"),
    "orange": "orange|tangerine|apricot|coral|peach|pumpkin|carrot|orangish|copper",
    "purple": "purple|violet|lilac|lavender|mauve|plum|magenta|fuchsia|aubergine|grape|amethyst|purplish|orchid",
    "pink": "pink|salmon|rosy|pinkish|blush|hot pink|bubblegum",
    "brown": "brown|chocolate|tan|chestnut|coffee|hazel|bronze|brownish|umber|sienna|mahogany",
    "grey": "grey|gray|silver|charcoal|slate|ash|greyish|grayish|graphite",
    "black": "black|ebony|jet black|onyx|pitch black|blackish|inky|sable",
    "white": "white|ivory|snow white|pearl|cream|off white|whitish|chalk|alabaster",
    "cyan": "cyan|turquoise|teal|aqua|aquamarine",
}

NOUNS = {
    "block": (
        "block|cube|box|brick|piece|square|cuboid|object|item|thing|one|tile|chunk|toy|square block|square piece|"
        "building block|counter|token|crate|bloc|slab|guy|lad|boy|die|dice|square one|square thing|little one"
    ),
    "blocks": (
        "blocks|cubes|boxes|bricks|pieces|squares|cuboids|objects|items|things|ones|tiles|chunks|toys|square blocks|"
        "counters|tokens|crates|both|both of them|them|two|pair|the two of them|everything|all of them|them both|"
        "red and blue|blue and red|red and the blue|blue and the red|building blocks|slabs|guys|lads|dice"
    ),
}

DIRECTIONS = {
    "left": (
        "left|leftward|leftwards|left hand|left most|leftmost|west|westward|westwards|western|westerly|to my left|"
        "to your left|port|leftwardly"
    ),
    "right": (
        "right|rightward|rightwards|right hand|right most|rightmost|east|eastward|eastwards|eastern|easterly|"
        "to my right|to your right|starboard"
    ),
    "up": (
        "up|upward|upwards|top|topmost|top most|upper|uppermost|upper most|north|northward|northwards|northern|"
        "northerly|away from me|away from us|away from you|away from the viewer|away from the camera|further away|"
        "farther away|forward|forwards|far|farthest|furthest|back wall|ahead|further up|higher|higher up|distant|"
        "out from me"
    ),
    "down": (
        "down|downward|downwards|bottom|bottommost|bottom most|lower|lowermost|lower most|south|southward|"
        "southwards|southern|southerly|toward me|towards me|toward us|towards us|toward you|towards you|"
        "closer to me|nearer to me|to me|near me|closer to us|toward the viewer|towards the viewer|"
        "toward the camera|towards the camera|closer|nearer|backward|backwards|near|nearest|front|further down|"
        "lower down|in my direction|close to me|closest to me|nearest to me"
    ),
    "up left": "northwest|northwestern|north westerly|northwestward|upleft",
    "up right": "northeast|northeastern|north easterly|northeastward|upright",
    "down left": "southwest|southwestern|south westerly|southwestward|downleft",
    "down right": "southeast|southeastern|south easterly|southeastward|downright",
}

PLACES = {
    "centre": (
        "centre|center|middle|midpoint|mid point|centerpoint|centrepoint|centre point|center point|central area|"
        "dead centre|dead center|very centre|very center|very middle|core|heart|central spot|central position|"
        "central point|middle spot|middle point|centre spot|center spot|mid table|bullseye|bulls eye|origin|"
        "centremost|central|mid"
    ),
    "side": (
        "side|edge|border|boundary|margin|rim|wall|end|flank|brink|perimeter|fringe|limit|sideline|ledge|extremity"
    ),
    "corner": "corner|angle|nook|quadrant",
}

RELATIONS = {
    "together": (
        "together|close together|next to each other|side by side|near each other|next to one another|"
        "beside each other|touching each other|against each other|to each other|towards each other|"
        "toward each other|into each other|closer together|up against each other|in one spot|in one place|"
        "to one another|close to each other|in a group|in a pile|in a cluster|nearer to each other|"
        "closer to each other|adjacent to each other|touching|with each other|in a bunch|meet up|be neighbours|"
        "be neighbors|near one another|close to one another|touch each other"
    ),
    "apart": (
        "apart|away from|far from|at a distance from|clear of|away from each other|away from one another|far apart|"
        "farther apart|further apart|from each other|from one another|asunder|far from each other|"
        "far away from each other|to opposite sides|in opposite directions|on opposite sides|to different sides|"
        "into different corners|distance between|more space between|space between|a gap between|"
        "more distance between|some distance between|some space between|room between|more room between"
    ),
    "to": (
        "to|into|onto|towards|toward|against|at|in|on|by|beside|next to|near to|near|close to|adjacent to|alongside|"
        "until|till|up to|down to|over to|across to|along to|back to|right to|through to|up against|as far as|"
        "reaches|up next to|over by|right next to|right up to|all the way to|as close as possible to|"
        "in contact with|for|in the direction of|touches|touching|meets|hits|so that it touches|hugging|"
        "within|inside|upon|beneath|closer to|nearer to|over at|over in|over into|up into|down into|out to|off to|"
        "over towards|over toward|up towards|down towards|up beside|level with|neighbouring"
    ),
    "with": "with|using",
}

DROPPED = (
    "the|a|an|this|that|these|those|my|your|its|his|their|our|it|itself|yourself|of|from|is|be|being|been|are|was|"
    "gets|goes|and|so|as|there|here|then|now|just|please|pls|plz|kindly|thanks|thank you|cheers|robot|hey|hi|hello|"
    "ok|okay|well|right away|right now|straight away|at once|straight|directly|immediately|again|once more|over|"
    "along|across|away|out|off|a bit|a little|a little bit|bit|slightly|somewhat|some|more|further|farther|quick|"
    "fast|slow|gentle|will|table|tabletop|board|surface|desk|area|zone|region|spot|position|location|point|part|"
    "section|place|space|field|workspace|arena|screen|picture|colored|coloured|color|colour|small|little|big|large|"
    "square shaped|wooden|plastic|all the way|way|direction|side to side|i|you|we|want|would|like|need|needs|should|"
    "must|have to|has to|could|can|try|let us|lets|want you to|ought|supposed|ready|if possible|if you can|"
    "if you could|if you would|if you please|mind|for me|do me a favour and|do me a favor and|dear|friend|sir|"
    "pusher|disc|disk|arm|towards there|very|really|almost|hand|go ahead and|go and|come on|carefully|one step|"
    "a step|a few steps|few|steps|every|each|all|starting|in place|where you are|right where you are|right there|"
    "right here|like that|like this|for now|for a moment|moment|for a while|while|for a second|second|a sec|still|"
    "motionless|put|steady|exactly|perfectly|totally|completely|where|currently|far as|next|finally|first|two|both|"
    "located|that is|which is|ends up|end up|ending up|lands|land|rests|sits|stands|lies|sit|lie|belongs|belong|"
    "is at|opposite"
)
"""Words that say nothing here: articles, politeness, adverbs, and what a table is called."""

NEGATIONS = (
    "not|never|no|none|neither|nor|without|avoid|avoiding|refrain|forbid|forbidden|prohibited|prohibit|except|"
    "instead|cannot|stop|cease|quit|abstain|rather than|other than|but not|anything but|anywhere but|keep off|"
    "hands off|stay off|stay away|keep away|steer clear|leave alone|ignore|skip|nobody|nothing|nowhere|hardly|"
    "barely|resist|unless|prevent|undo|cancel|abort|omit|spare|bypass|decline|refuse|stay clear|keep clear|back off|"
    "leave be|untouched|undisturbed|disallowed|banned|against the rules|unacceptable|bad idea|off limits|wrong|"
    "forget|dare|lay off|taboo|halt|anything other|void|mustnt|dont|doesnt|wont|cant|shouldnt|wouldnt|couldnt|didnt|"
    "isnt|arent|shant|neednt"
)
"""Words that turn a command into its opposite, or take it back."""

QUESTIONS = (
    "what|why|who|whom|whose|when|where|which|how|is|are|was|were|does|did|do you|do i|do we|do they|has|am|should|"
    "shall|may"
)
"""Words that a question begins with."""

OPENINGS = (
    "please|pls|plz|kindly|now|then|just|hey|hi|hello|ok|okay|well|robot|dear robot|hey robot|so|alright|all right|"
    "could you|can you|would you|will you|could you please|can you please|would you please|will you please|"
    "would you mind|i want you to|i would like you to|i need you to|i want|i would like|i need|we need|we want|"
    "you should|you must|you have to|you need to|you can|you could|you may|try to|let us|let s|lets|go ahead and|"
    "go and|come and|come on and|do me a favour and|do me a favor and|be so kind as to|would you be so kind as to|"
    "be a dear and|it would be nice if you|it would be great if you|i d like you to|i d like|i wish you would|"
    "i would appreciate it if you|your task is to|your job is to|the goal is to|the task is to|your goal is to|"
    "make sure to|make sure that|make sure|first|next|finally|after that|and|time to|it is time to|if you can|"
    "if you could|quick|start to|begin to|we should|i think you should|do please|would it be possible to|"
    "i wonder if you could|if you do not mind|if you would|you are to|you ought to|firstly|secondly|lastly|"
    "to begin with|to start with|start by|begin by|finish by|end by|start with|begin with|when that is done|"
    "once that is done|once done|when done|when you are done|when you are finished|when finished|"
    "as soon as that is done|having done that|be so kind|if you would be so kind|i wish to see|i want to see|"
    "i would love to see|i d love to see|i d love|i would love|let me see|show me how you"
)
"""What is said before a command, out of politeness or habit."""
