"""Every sentence of the page that does not depend on a result."""

TITLE = "RMD"
TAGLINE = "The same picture in a handful of steps: small first, then large."

PROMPT_HINT = "a fox on a light blue background"
RANDOMISE = "New seed each time"
LIVE = "Live: redraw while I move these"
GENERATE = "Generate"
STOP = "Stop"

ADVANCED = "Advanced"
NEGATIVE_HINT = "What the picture should not show (teacher)"

STUDENT_HERE = "The fast picture appears here,"
TEACHER_HERE = "and the slow one here."
IDLE = "Press Generate: the student draws first, the teacher follows with the same seed."
QUEUED = "In the queue …"
WARMING = "Warming up: {index} of {total} shapes"
WAITING = "Another picture is being made; yours is next …"
FETCH = "Fetch from the Hugging Face Hub"
FETCH_ALL = "Everything in the catalog is on this machine."
FETCH_ELSEWHERE = (
    "Other models are fetched by whoever runs this app: python -m rmd models --download ID, or here, when the app "
    "answers this machine alone."
)
FETCH_STOPPED = "Stopped. What has arrived is kept; the next download goes on from there."
FETCHED = "{name} is here now. Start the app again to offer it."
OTHER_MODEL = "The settings are for a model that is not offered here: {name}."
STORED = "A stored example of {name}, made earlier on {hardware}. Press Generate to make your own."
EARLIER = "Made earlier, seed {seed}."
AHEAD = "Drawn in an idle moment, seed {seed}."
STORED_PICTURE = "from the stored example"
EXAMPLES = "Stored examples"
STRIP_SHOWN = "Drag the line to move the switch; point at a step to see what it knew."
STRIP_ABOVE = " Above: the teacher at the same noise."
NOT_RUN = "Not run yet: press Generate."
STOPPED_HALF = "Stopped; the student was finished and stays."
OF_SEVERAL = "{index} of {total} are done"
RESULTS = "The results of this run, by seed"
TIMING = "Timing the student again: {index} of {total}"
BUSY = "Measured while the machine was busy: do not trust these times. Measure again when it is idle."
MEASURE_AGAIN = "Measure again"
CACHED = " The teacher comes from the cache, measured on {where}: the speed-up compares two occasions."
NOT_COUNTED = "Loading, warm-up and previews are not counted."

SCHEDULE = "How the steps are spent"
TIMINGS = "Where the time goes"
PLAN_HINT = "96x96:1,144x144:1,192x192:2"
NO_TIMINGS = "After the first picture: the time of every part, student beside teacher."

TOUR_NAME = "A guided minute"
TOUR_BEGIN = "New here? Take the one-minute tour"
TOUR_WORDS = {
    "Full size only": (
        "All {steps} look at the whole picture. That is how few-step models usually work. It took {time}."
    ),
    "Small first, then large": (
        "The first {switch} look at a picture of half the side, where a step took {cheaper} of a large one's time, and "
        "decide what is where. At the switch the picture is enlarged, and the others draw the detail: {time}."
    ),
    "Small only": (
        "Nothing looks at the full size, the result is only enlarged: {time}, and blurred. The best switch lies "
        "between."
    ),
    "Without distillation": (
        "The same {steps} on the teacher's own weights, made on this machine now. They need guidance, so each step is "
        "two calls; the student was trained to need one. Now drag the line under the pictures yourself."
    ),
}
TOUR = tuple(TOUR_WORDS.items())
"""(title, words) of the captions; the figures are the stored example's."""
TOUR_MADE = "Without distillation, made here in {time}. The teacher is the stored one."

SWEEP_ABOUT = (
    "The student for every split of its steps into low and full resolution, on one prompt and seed: see what each "
    "choice costs and what it does to the picture. The teacher is drawn once (unless it is off under Advanced), and "
    "every cell says how much faster it was and how far its picture is from the teacher's. Click one to compare them."
)
SWEEP_STEPS = "Numbers of steps to try"
SWEEP_MORE = "Vary the noise, or try plans of several sizes"
SWEEP_PLANS = "Plans of several sizes to try, one a line"
SWEEP_KINDS = "Re-injections to try"
SWEEP_ETAS = "Values of η to try"
SWEEP_MORE_INFO = "None chosen: the one under Advanced. Cells that would repeat another are left out."
SWEEP_NONE = "Choose at least one number of steps."
SWEEP_STOPPED = "Stopped. Start again to go on where it ended."
SHARE = "Share, load and save settings"
LINK = "Link to the last picture's settings"
LOAD = "Load settings from a saved picture"
HISTORY_ABOUT = "Your last pictures, kept in this browser only. Click one to bring its settings back."
MARK_NONE = "Mark two to four with “Compare” to see them in one place."
FORGOTTEN_ALL = "The server no longer has these pictures; mark two of newer ones."
MARK_ONE = "One is marked; mark another."
SMALL_COPY = "a small copy, the server keeps pictures for some hours only"
FORGOTTEN = "The server no longer has this picture."
DIFFERS = "What differs is in bold."
MAP = "How good and how fast"
MAP_ABOUT = (
    "Each dot is a plan, steps/low-resolution steps, blue for the low-resolution share; click one to load its "
    "settings. Thin lines join the switches of one number of steps; on the thick one lie the plans that none beats in "
    "both."
)

ABOUT = """
### What you are looking at
A diffusion model draws by removing noise in many steps. The **teacher** is such a model and takes its time: 50 steps,
each one computed twice because of guidance. The **student** was trained from it to need only a few steps, and to take
the first of them on a **smaller picture**, where a step costs a fraction. At the *switch* the picture is enlarged and
the remaining steps add the detail.

### What the numbers mean
- The large number is **end to end**: prompt encoding, all steps and the decoder, teacher time over student time.
- **Denoiser only** leaves the encoder and the decoder out; that is the number usually quoted in papers.
- Both runs use the same prompt, seed, device and precision, one after the other. Loading, warm-up and the previews are
  not counted. The student's few calls are timed three times and the median counts; the teacher is long and timed
  once. Where other work on the machine took processor time meanwhile, the page says so: then *Measure again*.
- *Not distilled* means that no trained student was found: the few steps use the teacher's own weights with guidance,
  which shows the cost of the plan but not the quality of a student.

### The method
RMD (cross-resolution distribution matching, [arXiv 2603.06136](https://arxiv.org/abs/2603.06136)) matches the noise
levels of the two resolutions by their signal-to-noise ratio, so that no information is lost at the switch.

### Privacy
Nothing is sent anywhere but to this server. Downloads hold the settings of the picture as text, so that *Load settings*
can bring them back.
"""
