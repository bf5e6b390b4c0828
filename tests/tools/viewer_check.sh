#!/bin/sh
# Looks at a running VNC server with a viewer that is not ours: TigerVNC in a virtual X display.
#
#   viewer_check.sh HOST:PORT OUT.png [TEXT]
#
# Stores what the viewer shows in OUT.png. With TEXT, types it into the viewer first, as a person would: through the X
# keyboard, so that Shift and layout take the way they take on a desktop. A password is taken from VNC_PASSWORD, by the viewer itself.
# Status 0 if the viewer connected and its window is not of one colour only. Needs the Debian packages tigervnc-viewer,
# xvfb, x11-apps, imagemagick and xdotool.
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
address=$1
output=$2
text=${3-}

for tool in Xvfb xtigervncviewer xdotool xwd convert identify; do
  if ! command -v "$tool" >/dev/null; then
    echo "viewer_check.sh: $tool is missing; see the packages at the top of $0" >&2
    exit 2
  fi
done

work=$(mktemp -d)
x_server=
viewer=
clean_up() {
  [ -z "$viewer" ] || kill "$viewer" 2>/dev/null || true
  [ -z "$x_server" ] || kill "$x_server" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# The X server chooses a free display and writes its number.
mkfifo "$work/display"
Xvfb -displayfd 3 -screen 0 1280x1024x24 -nolisten tcp 3>"$work/display" 2>"$work/xvfb.log" &
x_server=$!
read -r number <"$work/display"
DISPLAY=:$number
export DISPLAY
setxkbmap us 2>/dev/null || true

set -- -SecurityTypes=None,VncAuth -Shared -RemoteResize=0 -AlertOnFatalError=0 -ReconnectOnError=0
# Two colons: a port, not a display number.
HOME=$work xtigervncviewer "$@" "${address%:*}::${address##*:}" >"$work/viewer.log" 2>&1 &
viewer=$!

if ! window=$(timeout 20 xdotool search --sync --onlyvisible --pid "$viewer" 2>/dev/null | tail -n 1) || [ -z "$window" ]; then
  echo "viewer_check.sh: the viewer shows no window:" >&2
  cat "$work/viewer.log" >&2
  exit 1
fi
sleep 2 # for the first full picture

if [ -n "$text" ]; then
  xdotool mousemove --window "$window" 100 100 click 1 windowfocus "$window" # there is no window manager to do it
  sleep 1
  xdotool type --delay 50 -- "$text"
  sleep 2
fi

xwd -silent -id "$window" >"$work/window.xwd"
convert "xwd:$work/window.xwd" "png:$output"
if ! kill -0 "$viewer" 2>/dev/null; then
  echo "viewer_check.sh: the viewer ended:" >&2
  cat "$work/viewer.log" >&2
  exit 1
fi
colours=$(identify -format '%k' "$output")
if [ "$colours" -lt 2 ]; then
  echo "viewer_check.sh: the viewer's window is of one colour; see $output" >&2
  exit 1
fi
echo "viewer_check.sh: $address shown in $output, $colours colours"
