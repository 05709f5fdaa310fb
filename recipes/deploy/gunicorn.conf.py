# gunicorn's settings: gunicorn -c gunicorn.conf.py app:app
worker_class = 'gevent_cbase.gunicorn.GeventWorker'
workers = 2  # one for each core
worker_connections = 1000
graceful_timeout = 30  # seconds for what is under way when a worker ends
keepalive = 5  # seconds; more than a proxy keeps an idle connection, see nginx.conf
forwarded_allow_ips = '127.0.0.1'  # whose word about scheme and client counts
control_socket_disable = True  # of gunicorn 25 and newer: it would be written to a home folder
