#compdef mailfs mailfs-sendmail
# zsh completion for mailfs(1) and mailfs-sendmail. What can be completed is asked of mailfs itself.

_mailfs_accounts() {
	local -a accounts
	accounts=(${${(f)"$(mailfs $config complete accounts 2>/dev/null)"}//:/\\:})
	_describe -t accounts account accounts
}

_mailfs_commands() {
	local -a commands
	commands=(${(f)"$(mailfs complete commands 2>/dev/null)"})
	_describe -t commands command commands
}

_mailfs_flags() {
	local -a flags
	flags=(${(f)"$(mailfs complete flags $1 2>/dev/null)"})
	_describe -o -t options option flags
}

_mailfs_options() {
	local -a options
	options=(${(f)"$(mailfs complete mount-options 2>/dev/null)"})
	_values -s , 'mount option' ${options%=}
}

_mailfs_mailboxes() {
	local -a mailboxes
	mailboxes=(${${(f)"$(mailfs $config complete mailboxes 2>/dev/null)"}//:/\\:}) # behind a plain ":" stands what explains a word
	_describe -t mailboxes mailbox mailboxes
}

_mailfs_mounts() {
	local -a mounts
	mounts=(${(f)"$(awk '$3 == "fuse.mailfs" { print $2 }' /proc/self/mounts)"})
	compadd -- ${(g::)mounts}
}

_mailfs_sendmail() {
	local -a config
	_arguments -s '-t[recipients are those of the fields]' '-i[a line with a single dot does not end the message]' \
		'-f[the sender of the envelope]:address:' '-F[the name in a From field that is added]:name:' \
		'-N[notifications]:when:_values -s , when never success failure delay' '-R[what they bring back]:what:(full hdrs)' \
		'-bp[list the outbox]' '-q[send what waits]' '--account[whose outbox]:account:_mailfs_accounts' '--config[settings]:file:_files' '*:recipient:'
}

_mailfs() {
	[[ $service == mailfs-sendmail ]] && { _mailfs_sendmail; return }
	local -a config
	local command i
	for (( i = 2; i < CURRENT; i++ )); do
		case $words[i] in
		--config) config=(--config $words[++i]) ;;
		--account|--trace|-o|--options) (( i++ )) ;;
		-*) ;;
		*) command=$words[i]; break ;;
		esac
	done
	case $words[CURRENT-1] in
	--config) _files; return ;;
	--account) _mailfs_accounts; return ;;
	--trace) _values -s , component all net tls imap pop3 smtp sync cache fs control; return ;;
	-o|--options) _mailfs_options; return ;;
	esac
	if [[ -z $command ]]; then
		[[ $PREFIX == -* ]] && { compadd -- --config --account --trace --help --version; return }
		_mailfs_commands
		_mailfs_accounts
		return
	fi
	[[ $PREFIX == -* ]] && { _mailfs_flags $command; return }
	case $command in
	mount) _mailfs_accounts; _files -/ ;;
	umount) _mailfs_mounts ;;
	send) _files ;;
	sync|subscribe|unsubscribe) _mailfs_accounts; _mailfs_mailboxes ;;
	status|list|connect|disconnect|check|events|pending) _mailfs_accounts ;;
	cancel|retry) compadd -- all; _mailfs_accounts ;;
	flag)
		if [[ $PREFIX == +* ]]; then
			compadd -- +seen +answered +flagged +draft +deleted
		else
			_files
		fi ;;
	help) _mailfs_commands ;;
	*) _files -/ ;;
	esac
}

_mailfs "$@"
