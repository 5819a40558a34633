# bash completion for mailfs(1) and mailfs-sendmail. What can be completed is asked of mailfs itself.

# compgen -W expands each of its words as the shell does, and runs what stands in $(): a server's mailboxes and the mounts of
# other users may be named so.
_mailfs_quoted()
{
	local word
	while IFS= read -r word; do
		[[ -n $word ]] && printf '%q\n' "$word"
	done
}

# Names that stand on standard input, one on a line, as they have to be typed: readline's own quoting of what is completed by a
# function leaves $ and ` as they are. cur: what is there already, which may be quoted
_mailfs_offer()
{
	local word quote='' begun=${cur//\\/}
	[[ $cur == [\"\']* ]] && quote=${cur:0:1} begun=${cur:1}
	COMPREPLY=()
	while IFS= read -r word; do
		[[ -n $word && $word == "$begun"* ]] || continue
		case $quote in
		'') printf -v word '%q' "$word" && word=${word//:/\\:} word=${word//=/\\=} ;;
		\') [[ $word == *\'* ]] && continue ;;
		*) [[ $word == *[\"\$\`\\!]* ]] && continue ;;
		esac
		COMPREPLY+=("$word")
	done
}

_mailfs()
{
	local cur prev words cword
	_init_completion -n =: 2>/dev/null || {
		cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	}
	local config=() command='' i
	for ((i = 1; i < cword; i++)); do
		case ${words[i]} in
		--config) config=(--config "${words[++i]}") ;;
		--account | --trace | -o | --options) ((i++)) ;;
		-*) ;;
		*) command=${words[i]}; break ;;
		esac
	done

	_mailfs_said() { mailfs "${config[@]}" complete "$@" 2>/dev/null; }
	_mailfs_words() { _mailfs_said "$@" | _mailfs_quoted; }
	_mailfs_names() { _mailfs_said "$@" | cut -d: -f1 | _mailfs_quoted; }
	_mailfs_from() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }

	case $prev in
	--config)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	--account)
		_mailfs_from "$(_mailfs_words accounts)"
		return ;;
	--trace)
		_mailfs_from "all net tls imap pop3 smtp sync cache fs control"
		return ;;
	-o | --options)
		# what stands before the last comma stays as it is
		local done='' last=$cur
		[[ $cur == *,* ]] && done=${cur%,*}, last=${cur##*,}
		mapfile -t COMPREPLY < <(compgen -P "$done" -W "$(_mailfs_words mount-options)" -- "$last")
		compopt -o nospace 2>/dev/null
		return ;;
	esac

	if [[ -z $command ]]; then
		if [[ $cur == -* ]]; then
			_mailfs_from "--config --account --trace --help --version"
		else
			_mailfs_from "$(_mailfs_names commands) $(_mailfs_words accounts)"
		fi
		return
	fi
	if [[ $cur == -* ]]; then
		_mailfs_from "$(_mailfs_names flags "$command")"
		return
	fi
	case $command in
	mount)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur"; compgen -W "$(_mailfs_words accounts)" -- "$cur") ;;
	umount)
		# mount points, with the kernel's octal escapes undone
		local points
		points=$(awk '$3 == "fuse.mailfs" { print $2 }' /proc/self/mounts)
		_mailfs_offer < <(printf '%b\n' "$points") ;;
	sync | subscribe | unsubscribe)
		_mailfs_offer < <(_mailfs_said accounts; _mailfs_said mailboxes) ;;
	send)
		local IFS=$'\n'
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		compopt -o filenames 2>/dev/null ;;
	status | list | connect | disconnect | check | events | pending)
		_mailfs_from "$(_mailfs_words accounts)" ;;
	cancel | retry)
		_mailfs_from "all $(_mailfs_words accounts)" ;;
	flag)
		if [[ $cur == +* ]]; then
			_mailfs_from "+seen +answered +flagged +draft +deleted"
		else
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi ;;
	help)
		_mailfs_from "$(_mailfs_names commands)" ;;
	*)
		# mailfs SOURCE MOUNTPOINT
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	esac
}
complete -F _mailfs mailfs

_mailfs_sendmail()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} choices=''
	case $prev in
	--config)
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	--account) choices=$(mailfs complete accounts 2>/dev/null | _mailfs_quoted) ;;
	-N) choices="never success failure delay" ;;
	-R) choices="full hdrs" ;;
	-f | -F) ;;
	*) [[ $cur == -* ]] && choices="-t -i -f -F -N -R -bp -q --account --config" ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$cur")
}
complete -F _mailfs_sendmail mailfs-sendmail
