"""What the server says when it refuses or cannot do something."""

MEMBERS = "Sign in on the page first, or send name and password with the request (HTTP Basic)."
STOPPED = "Stopped."
FAILED = "That did not work"
TOO_MANY = "You have asked for many pictures in a short time; please wait {seconds} seconds and try again."
TOO_FEW = (
    "{name} takes {needed} values in “data”, but {given} came. It is easier with names: "
    'post {{"prompt": "a fox"}} to call/v2/{name}.'
)
NOT_UNDERSTOOD = "This request cannot be understood; the page behind “Use via API” shows what can be asked and how."
UNEXPECTED = "Something went wrong inside the app. The server's log has the details; please try again."
NO_SETTINGS = "This file holds no settings of this app; choose a PNG that was saved here."
NO_MODEL = "No model can be used here yet. Start the app with --backbone FOLDER, or train the bundled one."
TOO_LONG = "The request took longer than {seconds} seconds and was stopped; choose fewer steps or pictures."
