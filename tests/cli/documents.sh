#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What help, man pages and completion say of options and commands is the same, and is what the
# programs know.
# shellcheck source=tests/cli/common
. "$(dirname "$0")/common"

cd "$WORK" || exit 1
status=0

# The options in FILE of man source: lines behind .TP that begin with a dash.
man_options() {
	sed 's/\\-/-/g' "$1" | awk '/^\.TP/ { tp = 1; next } tp { print; tp = 0 }' |
		grep -E '^\.B[RI]* "?-' | grep -oE -- '-{1,2}[a-z][a-z-]*' | sort -u
}
# Those of a --help text, from its lines that begin with one.
help_options() {
	grep -oE '^  -{1,2}[a-z-]+(, -{1,2}[a-z-]+)?' "$1" | grep -oE -- '-{1,2}[a-z][a-z-]*' | sort -u
}
# The words of the completion's list of options.
completion_options() {
	sed -n "s/.*compgen -W '\(-[^']*\)'.*/\1/p" "$1" | tr ' ' '\n' | grep -xE -- '-{1,2}[a-z][a-z-]*' | sort -u
}
same() {
	diff "$1" "$2" >out 2>&1
	verdict "documents: $3"
}

"$BUILD/tierstat" --help >tierstat.help
"$BUILD/emfatier" --help >emfatier.help
man=$ROOT/tools/man
help_options tierstat.help >help
[ "$(wc -l <help)" -ge 9 ]
verdict "documents: tierstat --help has options"
man_options "$man/tierstat.1" >man
same help man "tierstat: options of help and man page"
completion_options "$ROOT/tools/completion/tierstat" >completion
same help completion "tierstat: options of help and completion"
# and the program knows each of them
bad=
while read -r option; do
	"$BUILD/tierstat" prom "$option" >/dev/null 2>&1 </dev/null || true
	case $option in -h | --help | --version) continue ;; esac
	# with no value where it needs one: anything but "unknown option"
	"$BUILD/tierstat" "$option" 2>&1 </dev/null | grep -q 'unknown option' && bad="$bad $option"
done <help
[ -z "$bad" ]
verdict "documents: tierstat knows its options"

sed -n '/^Commands:/,/^$/s/^  \([a-z]\{1,\}\) .*/\1/p' tierstat.help | sort >help
sed -n '/^.SH COMMANDS/,/^.SH/s/^\.BR \([a-z]*\) .*/\1/p' "$man/tierstat.1" | sort >man
same help man "tierstat: commands of help and man page"
sed -n "s/.*commands='\(.*\)'/\1/p" "$ROOT/tools/completion/tierstat" | tr ' ' '\n' | sort >completion
same help completion "tierstat: commands of help and completion"
for command in $(cat help); do
	"$BUILD/tierstat" "$command" --help | cmp -s - tierstat.help || bad="$bad $command"
	grep -q "[ ,]$command[ ,]" "$ROOT/Makefile" || bad="$bad $command(man)"
done
[ -z "$bad" ] && [ "$(wc -l <help)" -ge 10 ]
verdict "documents: tierstat knows its commands"

help_options emfatier.help >help
{ man_options "$man/emfatier.1" | grep -vxE -- '-h|--help|--version'; } >man
same help man "emfatier run: options of help and man page"
{ completion_options "$ROOT/tools/completion/emfatier" | grep -vxE -- '-h|--help|--version'; } >completion
same help completion "emfatier run: options of help and completion"
for option in $(cat help); do
	"$BUILD/emfatier" run "$option" 2>&1 </dev/null | grep -q 'unknown option' && bad="$bad $option"
done
[ -z "$bad" ]
verdict "documents: emfatier run knows its options"
sed -n 's/^\(usage:\|      \) emfatier \([a-z]*\) .*/\2/p' emfatier.help | sort -u >help
sed -n 's/^\.SS emfatier \([a-z]*\).*/\1/p' "$man/emfatier.1" | sort -u >man
same help man "emfatier: commands of help and man page"
for command in $(cat help); do
	grep -qE "compgen -W '(run )?.*\b$command\b.* --version'" "$ROOT/tools/completion/emfatier" || bad="$bad $command"
done
[ -z "$bad" ] && [ -s help ]
verdict "documents: emfatier: commands of completion"
for command in $(cat help); do
	"$BUILD/emfatier" "$command" --help | cmp -s - emfatier.help || bad="$bad $command"
done
[ -z "$bad" ]
verdict "documents: emfatier COMMAND --help"

"$BUILD/emfatierd" --help >emfatierd.help
help_options emfatierd.help >help
[ "$(wc -l <help)" -ge 12 ]
verdict "documents: emfatierd --help has options"
man_options "$man/emfatierd.8" >man
same help man "emfatierd: options of help and man page"
completion_options "$ROOT/tools/completion/emfatierd" >completion
same help completion "emfatierd: options of help and completion"
for option in $(grep -vxE -- '-h|--help|--version' help); do
	"$BUILD/emfatierd" "$option" '' 2>&1 </dev/null | grep -q 'unknown option' && bad="$bad $option"
done
[ -z "$bad" ]
verdict "documents: emfatierd knows its options"

# The page of the policy file is made from the table of keys.
sed -n '/^Settings/,/^$/s/^  \([a-z]*\)\.\([a-z_]*\) .*/\1 \2/p' emfatier.help >help
awk '/^\.SS \[/ { gsub(/[][]/, "", $2); section = $2; next }
	/^\.BR [a-z_]+ " = / { print section, $2 }' "$BUILD/man/emfatier.conf.5" >man
same help man "emfatier.conf: the settings"
[ "$(wc -l <man)" -ge 15 ]
verdict "documents: emfatier.conf has settings"
tr ' ' . <help | sort >settings
sed -n '/^## Settings/,/^## tierstat/p' "$ROOT/README.md" >readme
{
	sed -n 's/^| \(`[^|]*\) |.*/\1/p' readme | grep -oE '(local|store|engine)\.[a-z_]+'
	sed -n '/^`\[class NAME\]`/,/^$/p' readme | sed 's/.*Keys: //' | grep -oE '`[a-z]+`' | tr -d '`' | grep -xE 'match|evict|prefetch|window|resident|granule|place' | sed 's/^/class./'
} | sort >listed
same settings listed "README.md: the settings"

if command -v man >/dev/null; then
	for page in "$man"/*.[18] "$BUILD"/man/*.5; do
		LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>err >out
		[ ! -s err ] && [ -s out ]
		verdict "documents: $(basename "$page") is sound"
	done
else
	skipped "documents: man pages" "no man"
fi
for file in "$ROOT"/tools/completion/*; do
	bash -n "$file" 2>err
	verdict "documents: completion of $(basename "$file") is a script"
done
COMP_WORDS=(tierstat re) COMP_CWORD=1
# shellcheck source=tools/completion/tierstat
. "$ROOT/tools/completion/tierstat"
_tierstat
[ "${COMPREPLY[*]}" = 'regions record replay' ]
verdict "documents: completion completes"

done_testing
