# The accesses to shared memory of one C function, in the order of its text, and its calls of functions that make more of them:
#     awk -v f=FUNCTION -v calls='a|b|c' -f steps.awk FILE
# prints such as "lock, find_settled, load state, store inside release, swap print, unlock".
$0 ~ "^[a-z].*[ *]" f "\\(" { inside = 1; body = ""; next }
inside && /^}/ {
    gsub(/\/\*[^*]*\*\//, "", body)
    while (match(body, /\[[^][]*\]/)) body = substr(body, 1, RSTART - 1) substr(body, RSTART + RLENGTH)
    while (match(body, "[a-z_0-9]+\\(")) {
        name = substr(body, RSTART, RLENGTH - 1)
        body = substr(body, RSTART + RLENGTH)
        step = ""
        if (name ~ /^pthread_mutex_(lock|unlock)$/) {
            step = name ~ /unlock/ ? "unlock" : "lock"
        } else if (name ~ /^atomic_(load|store|exchange|compare|fetch)/) {
            order = name ~ /_explicit$/ && match(body, /memory_order_[a-z_]+/) ? " " substr(body, RSTART + 13, RLENGTH - 13) : ""
            sub(/^atomic_/, "", name)
            sub(/_explicit$/, "", name)
            sub(/^compare_exchange_.*/, "swap", name)
            word = body
            sub(/[,)].*/, "", word)
            gsub(/.*[.>&]/, "", word)
            step = name " " word order
        } else if (name ~ "^(" calls ")$") {
            step = name
            sub(/^fdn_limiters?_/, "", step)
        }
        if (step != "") steps = steps (steps == "" ? "" : ", ") step
    }
    print steps
    found = 1
    exit
}
inside { body = body " " $0 }
END { if (!found) print "(no such function)" }
