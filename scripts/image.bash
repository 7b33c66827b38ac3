# What the scripts share that make images from Debian packages, with no registry. Sourced, after host.bash; names
# of images and recipes are the caller's.
# shellcheck shell=bash disable=SC2154

tree=
clean() { if [[ -n $tree ]]; then as_root rm -rf "$tree"; fi; }
trap clean EXIT

# is_made IMAGE RECIPE: the image exists and comes from this recipe.
is_made() {
    local label
    label=$("${engine[@]}" image inspect -f '{{index .Config.Labels "haul.recipe"}}' "$1" 2>/dev/null) &&
        [[ $label == "$2" ]]
}

hash_of() { sha256sum | cut -c1-16; }

new_tree() {
    clean
    tree=$(mktemp -d -t haul-image.XXXXXX)
    # The tree becomes the image's root directory, which every user must be able to enter.
    chmod 755 "$tree"
}

# import IMAGE RECIPE CHANGE...
import() {
    local image=$1 recipe=$2 change changes=()
    shift 2
    for change in "$@" "LABEL haul.recipe=$recipe"; do changes+=(--change "$change"); done
    as_root tar -C "$tree" --numeric-owner -c . | "${engine[@]}" import "${changes[@]}" - "$image" >/dev/null
    clean
    tree=
}

# tree_of MIRROR SUITE COMPONENTS PACKAGE...: a root directory with these packages, as a tar to standard output.
tree_of() {
    local mirror=$1 suite=$2 components=$3 proxy
    shift 3
    proxy=$(apt-config shell proxy Acquire::http::Proxy)
    eval "$proxy"
    as_root env ${proxy:+http_proxy="$proxy"} mmdebstrap --quiet --mode=root --variant=minbase --format=tar \
        --components="$components" --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/'{man,doc,locale,info}'/*' \
        --include="$(IFS=,; echo "$*")" "$suite" - "$mirror"
}

# MIRROR SUITE COMPONENTS of this machine's own distribution, as apt is told.
archive() {
    local suite uri release component mirror='' components=''
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ -n $suite ]] || die "/etc/os-release names no suite (VERSION_CODENAME)"
    # The format is apt's to expand.
    # shellcheck disable=SC2016
    while read -r uri release component; do
        if [[ $release != "$suite" || ${mirror:-$uri} != "$uri" ]]; then continue; fi
        mirror=$uri
        components+=${components:+,}$component
    done < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages')
    # Cloud images name a file that lists mirrors.
    if [[ $mirror == mirror+file:* ]]; then
        mirror=$(grep -m1 -oE '^https?://[^[:space:]]+' "/${mirror#mirror+file:}")
    fi
    if [[ -z $mirror && $(. /etc/os-release && echo "$ID") == debian ]]; then
        mirror=http://deb.debian.org/debian components=main
    fi
    [[ -n $mirror ]] || die "apt's sources name no archive for $suite"
    echo "$mirror $suite $components"
}
