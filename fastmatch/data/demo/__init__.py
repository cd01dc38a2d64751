"The embedded sample: 2,100 listings of 751 emoji, each drawn and named by several 'sellers' (`NOTICE` names them and their licences)."
