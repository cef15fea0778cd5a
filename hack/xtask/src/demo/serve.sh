# A page on 8080, an echo service on 9000, and a counter into the log.
trap 'exit 0' TERM
httpd -p 8080 -h "$WWW"
nc -ll -p 9000 -e cat &
i=0
while :; do
  echo "tick $i"
  i=$((i + 1))
  sleep 0.05
done
